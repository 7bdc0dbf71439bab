//! The thread that asks: one question at a time.

use super::{
    Heard, MAX_ANSWERS, MAX_WAITING, RemoteAnswer, RemoteError, RemoteQuestion, Settings, Spent,
    exchange,
};
use crate::authorities::{SYSTEM_AUTHORITIES, tls_config};
use crate::mailbox::Mailbox;
use crate::refusal::shown;
use crate::secret::Secret;
use ocelli_reflex::QuestionId;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use ureq::Agent;

/// Longest answer, in bytes.
const MAX_ANSWER_BYTES: u64 = 256 << 10;

/// What the thread and the handle share.
pub(super) struct Shared {
    settings: Settings,
    orders: Mutex<Orders>,
    /// Told when there are new orders.
    news: Condvar,
    answers: Mailbox<RemoteAnswer>,
}

struct Orders {
    waiting: VecDeque<Waiting>,
    /// The question under way; none if it was cancelled.
    current: Option<QuestionId>,
    spent: Spent,
    stop: bool,
}

struct Waiting {
    id: QuestionId,
    body: Vec<u8>,
    form: exchange::Form,
    within: Duration,
    until: Instant,
}

impl Shared {
    pub(super) fn new(settings: Settings, answers: Mailbox<RemoteAnswer>, spent: Spent) -> Shared {
        Shared {
            settings,
            orders: Mutex::new(Orders {
                waiting: VecDeque::new(),
                current: None,
                spent,
                stop: false,
            }),
            news: Condvar::new(),
            answers,
        }
    }

    pub(super) fn answers(&self) -> &Mailbox<RemoteAnswer> {
        &self.answers
    }

    pub(super) fn spent(&self) -> Spent {
        self.orders().spent
    }

    pub(super) fn accept(&self, question: RemoteQuestion, day: u64) -> Result<(), RemoteError> {
        let settings = &self.settings;
        let mut orders = self.orders();
        let questions = match orders.spent.day == day {
            true => orders.spent.questions,
            false => 0,
        };
        if questions >= settings.per_day {
            return Err(RemoteError::Budget {
                spent: questions,
                limit: settings.per_day,
            });
        }
        let (waiting, coming) = (orders.waiting.len(), orders.waiting.len() + 1);
        let full = |waiting, limit| Err(RemoteError::Full { waiting, limit });
        if waiting >= MAX_WAITING {
            return full(waiting, MAX_WAITING);
        }
        // Each question that waits or is under way has its place among the answers.
        if self.answers.len() + coming >= MAX_ANSWERS {
            return full(self.answers.len() + coming, MAX_ANSWERS);
        }
        let body = exchange::body(&settings.model, settings.logprobs, &question);
        if body.len() > settings.max_bytes {
            return Err(RemoteError::TooLong {
                bytes: body.len(),
                limit: settings.max_bytes,
            });
        }
        let longest = Duration::from_secs(settings.timeout_s.into());
        let within = question.within.min(longest);
        orders.spent = Spent {
            day,
            questions: questions + 1,
        };
        orders.waiting.push_back(Waiting {
            id: question.id,
            body,
            form: question.form,
            within,
            until: Instant::now() + within,
        });
        drop(orders);
        self.news.notify_one();
        Ok(())
    }

    pub(super) fn cancel(&self, id: QuestionId) {
        let mut orders = self.orders();
        orders.waiting.retain(|waiting| waiting.id != id);
        if orders.current == Some(id) {
            orders.current = None;
        }
    }

    pub(super) fn stop(&self) {
        self.orders().stop = true;
        self.news.notify_one();
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next question; `None` at the end.
    fn next(&self) -> Option<Waiting> {
        let mut orders = self.orders();
        loop {
            if orders.stop {
                return None;
            }
            if let Some(next) = orders.waiting.pop_front() {
                orders.current = Some(next.id);
                return Some(next);
            }
            let woken = self.news.wait(orders);
            orders = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The thread's whole life.
pub(super) fn run(shared: &Shared) {
    while let Some(question) = shared.next() {
        let result = ask(&shared.settings, &question);
        let wanted = shared.orders().current.take() == Some(question.id);
        if wanted {
            // There is room: see `accept`.
            let _ = shared.answers.put(RemoteAnswer {
                id: question.id,
                result,
            });
        }
    }
}

fn ask(settings: &Settings, question: &Waiting) -> Result<Heard, RemoteError> {
    let url = settings.endpoint();
    let late = || RemoteError::Timeout {
        url: url.clone(),
        within: question.within,
    };
    let left = question.until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(late());
    }
    let failed = |fault| match fault {
        ureq::Error::Timeout(_) => late(),
        fault => RemoteError::Connection {
            url: url.clone(),
            reason: fault.to_string(),
        },
    };
    let mut request = agent(settings, left)?
        .post(&url)
        .header("Content-Type", "application/json");
    if let Some(path) = &settings.key_file {
        let key = Secret::read(path).map_err(|source| RemoteError::Key {
            path: path.clone(),
            source,
        })?;
        request = request.header("Authorization", format!("Bearer {}", key.reveal()));
    }
    let mut answer = request.send(&question.body[..]).map_err(failed)?;
    let status = answer.status().as_u16();
    let body = answer.body_mut().with_config().limit(MAX_ANSWER_BYTES);
    let body = body.read_to_vec().map_err(failed)?;
    if status != 200 {
        return Err(RemoteError::Status {
            url,
            status,
            text: shown(&String::from_utf8_lossy(&body)),
        });
    }
    exchange::read(&body, &question.form).map_err(|reason| RemoteError::Malformed { url, reason })
}

fn agent(settings: &Settings, within: Duration) -> Result<Agent, RemoteError> {
    let mut config = Agent::config_builder()
        .timeout_global(Some(within))
        // Another host would get a picture it was not meant to see.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .user_agent(concat!("ocelli/", env!("CARGO_PKG_VERSION")));
    if settings.url.starts_with("https:") {
        let path = settings.ca.as_deref();
        let path = path.unwrap_or(Path::new(SYSTEM_AUTHORITIES));
        let tls = tls_config(path).map_err(|reason| RemoteError::Authorities {
            path: path.to_owned(),
            reason,
        })?;
        config = config.tls_config(tls);
    }
    Ok(config.build().new_agent())
}
