//! [`Site`]: which request is answered with what, and who may decide.

use super::request::{Method, Request};
use super::state::PageState;
use super::{Decision, Settings, metrics};
use crate::secret::Secret;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use minijinja::{Environment, context};
use sha2::{Digest, Sha256};
use std::io::Read;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

const PAGE: &str = include_str!("index.html");
const STYLE: &str = include_str!("style.css");
const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// An answer.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) media_type: &'static str,
    pub(super) body: Body,
    /// Headers of this answer alone.
    pub(super) headers: Vec<(&'static str, &'static str)>,
}

/// What an answer carries.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Body {
    Bytes(Vec<u8>),
    /// The bytes of this file.
    File(PathBuf),
}

impl Response {
    pub(super) fn text(status: u16, text: &str) -> Response {
        Response::new(status, TEXT, format!("{text}\n").into_bytes())
    }

    fn new(status: u16, media_type: &'static str, body: Vec<u8>) -> Response {
        Response {
            status,
            media_type,
            body: Body::Bytes(body),
            headers: Vec::new(),
        }
    }

    fn with(mut self, name: &'static str, value: &'static str) -> Response {
        self.headers.push((name, value));
        self
    }
}

/// What is known when a request is answered.
pub(super) struct View<'a> {
    pub(super) state: &'a PageState,
    /// Time since the loop made progress; `None` if it never did.
    pub(super) idle: Option<Duration>,
}

/// How a reader showed the token.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    /// Not at all; none is asked for.
    NotNeeded,
    /// As a password, which browsers send by themselves, whoever made the page.
    Basic,
    /// As a bearer token, which no browser sends by itself.
    Bearer,
}

/// The rules of the page.
pub(super) struct Site {
    /// SHA-256 of the token: comparing it tells nothing about the token by its time.
    token: Option<[u8; 32]>,
    /// Stands in every form; another site cannot know it.
    csrf: String,
    hosts: Vec<String>,
    health_limit: Duration,
    policy: String,
    pages: Environment<'static>,
}

/// 128 random bits as text.
pub(super) fn random() -> std::io::Result<String> {
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("{:032x}", u128::from_le_bytes(bytes)))
}

impl Site {
    pub(super) fn new(settings: &Settings, token: Option<&Secret>, csrf: String) -> Site {
        let mut pages = Environment::new();
        // The file is part of the program; a test renders it. The name's ending turns escaping on.
        let _ = pages.add_template("index.html", PAGE);
        let style = STANDARD.encode(Sha256::digest(STYLE));
        Site {
            token: token.map(|token| Sha256::digest(token.reveal()).into()),
            csrf,
            hosts: settings.hosts.clone(),
            health_limit: Duration::from_secs(settings.health_limit_s.into()),
            policy: format!(
                "default-src 'none'; style-src 'sha256-{style}'; img-src 'self'; \
                 form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
            ),
            pages,
        }
    }

    /// The value of `Content-Security-Policy`.
    pub(super) fn policy(&self) -> &str {
        &self.policy
    }

    /// Answers a request; `decide` hands a decision on and says whether it was taken.
    pub(super) fn answer(
        &self,
        request: &Request,
        view: &View<'_>,
        decide: &mut dyn FnMut(Decision) -> bool,
    ) -> Response {
        if !self.is_ours(&request.host) {
            return Response::text(
                421,
                "This name is not known here; use the address, or add the name to `http.hosts`.",
            );
        }
        if request.path == "/health" {
            return self.health(view);
        }
        let Some(shown) = self.shown(request.authorization.as_deref()) else {
            return Response::text(401, "Show the token of `http.token_file` as password.").with(
                "WWW-Authenticate",
                "Basic realm=\"ocelli\", charset=\"UTF-8\"",
            );
        };
        match (request.method, request.path.as_str()) {
            (Method::Post, "/decide") => self.decide(request, view, shown, decide),
            (Method::Post, _) | (_, "/decide") => {
                Response::text(405, "Decisions are posted to /decide, all else is read.")
            }
            (_, "/") => self.page(view),
            (_, "/state.json") => match serde_json::to_vec(view.state) {
                Ok(json) => Response::new(200, "application/json", json),
                Err(_) => Response::text(500, "The state cannot be written as JSON."),
            },
            (_, "/metrics") => {
                let text = metrics::text(&view.state.metrics);
                Response::new(200, metrics::MEDIA_TYPE, text.into_bytes())
            }
            (_, path) => picture(path, view),
        }
    }

    /// Whether a `Host` is an address or a name of ours. A page of another name that was made to
    /// point here (DNS rebinding) carries that name.
    fn is_ours(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => {
                name
            }
            _ => host,
        };
        let bare = name.strip_prefix('[').and_then(|n| n.strip_suffix(']'));
        bare.unwrap_or(name).parse::<IpAddr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || self
                .hosts
                .iter()
                .any(|ours| ours.eq_ignore_ascii_case(name))
    }

    fn shown(&self, authorization: Option<&str>) -> Option<Shown> {
        let Some(token) = &self.token else {
            return Some(Shown::NotNeeded);
        };
        let (scheme, value) = authorization?.split_once(' ')?;
        let value = value.trim();
        let is_token = |text: &[u8]| <[u8; 32]>::from(Sha256::digest(text)) == *token;
        if scheme.eq_ignore_ascii_case("bearer") {
            return is_token(value.as_bytes()).then_some(Shown::Bearer);
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let pair = STANDARD.decode(value).ok()?;
        let colon = pair.iter().position(|b| *b == b':')?;
        is_token(&pair[colon + 1..]).then_some(Shown::Basic)
    }

    fn health(&self, view: &View<'_>) -> Response {
        match view.idle {
            Some(idle) if idle <= self.health_limit => Response::text(200, "ok"),
            Some(_) => Response::text(503, "The loop makes no progress."),
            None => Response::text(503, "The loop has not begun."),
        }
    }

    fn page(&self, view: &View<'_>) -> Response {
        let values = context! { state => view.state, csrf => self.csrf, style => STYLE };
        let page = self.pages.get_template("index.html");
        match page.and_then(|page| page.render(values)) {
            Ok(text) => Response::new(200, HTML, text.into_bytes()),
            Err(fault) => Response::text(500, &format!("The page cannot be made: {fault}")),
        }
    }

    fn decide(
        &self,
        request: &Request,
        view: &View<'_>,
        shown: Shown,
        decide: &mut dyn FnMut(Decision) -> bool,
    ) -> Response {
        if !is_same_site(request) {
            return Response::text(403, "Another site sent this; decide on the page itself.");
        }
        let Some((decision, csrf)) = form(&request.body) else {
            return Response::text(
                400,
                "Send request=NUMBER&nonce=NUMBER&decision=allow or deny, as a form.",
            );
        };
        if shown != Shown::Bearer && !csrf.is_some_and(|csrf| self.is_csrf(csrf)) {
            return Response::text(403, "The page is from before a restart; load it again.");
        }
        let pending = view.state.pending.iter();
        let mut pending = pending.filter(|action| action.request == decision.request);
        match pending.next() {
            None => Response::text(409, "This action does not wait any more."),
            Some(action) if !action.may_decide => {
                Response::text(403, "This action is not to be decided on this page.")
            }
            Some(_) if decide(decision) => Response::text(303, "Thank you.").with("Location", "/"),
            Some(_) => Response::text(503, "Too many decisions wait; try again."),
        }
    }

    fn is_csrf(&self, text: &str) -> bool {
        Sha256::digest(text) == Sha256::digest(&self.csrf)
    }
}

/// Whether a browser, if it is one, says that our own page sent this.
fn is_same_site(request: &Request) -> bool {
    let Some(origin) = &request.origin else {
        let site = request.fetch_site.as_deref();
        return matches!(site, None | Some("same-origin" | "none"));
    };
    let host = origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"));
    host.is_some_and(|host| host.eq_ignore_ascii_case(&request.host))
}

/// Reads the form. Nothing in it needs to be decoded: numbers, words and hexadecimal digits.
fn form(body: &[u8]) -> Option<(Decision, Option<&str>)> {
    let (mut request, mut nonce, mut granted, mut csrf) = (None, None, None, None);
    for pair in std::str::from_utf8(body).ok()?.trim_end().split('&') {
        let (name, value) = pair.split_once('=')?;
        let said_twice = match name {
            "request" => request.replace(value.parse().ok()?).is_some(),
            "nonce" => nonce.replace(value.parse().ok()?).is_some(),
            "decision" => match value {
                "allow" => granted.replace(true).is_some(),
                "deny" => granted.replace(false).is_some(),
                _ => return None,
            },
            "csrf" => csrf.replace(value).is_some(),
            _ => return None,
        };
        if said_twice {
            return None;
        }
    }
    let decision = Decision {
        request: request?,
        nonce: nonce?,
        granted: granted?,
    };
    Some((decision, csrf))
}

fn picture(path: &str, view: &View<'_>) -> Response {
    let name = path.strip_prefix("/snapshot/");
    let mut offered = view.state.pictures.iter();
    match offered.find(|picture| name == Some(&picture.name)) {
        Some(picture) => Response {
            status: 200,
            media_type: "image/jpeg",
            body: Body::File(picture.path.clone()),
            headers: Vec::new(),
        },
        None => Response::text(404, "There is nothing here; begin at /."),
    }
}

#[cfg(test)]
mod tests;
