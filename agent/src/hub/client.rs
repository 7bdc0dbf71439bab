//! Requests to the hub and to where it redirects.

use super::address::{Address, Endpoint, Origin, resolve};
use super::digest::ContentId;
use super::error::HubError;
use super::listing::{Listing, MAX_LISTING_BYTES};
use super::pace::{Paced, Slow};
use super::patience::{Failure, retry_after};
use super::settings::HubSettings;
use crate::authorities::tls_config;
use crate::refusal::{MAX_SHOWN_CHARS, shown};
use crate::remote::settings::is_near;
use crate::secret::Secret;
use std::io::Read;
use std::time::Duration;
use ureq::http::{Response, Uri};
use ureq::{Agent, Body};

/// Most redirects that are followed for one request.
const MAX_REDIRECTS: usize = 8;
/// How much of a refusal is read, in bytes.
const MAX_REFUSAL_BYTES: u64 = 4096;
/// Longest time without a byte that is waited for: a clock cannot hold any time.
const LONGEST_STALL: Duration = Duration::from_secs(24 * 3600);

/// How a request is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The content.
    Get,
    /// The headers alone.
    Head,
}

/// What the hub says about a file before it redirects to where the bytes lie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Linked {
    /// The hash of the content.
    pub id: Option<ContentId>,
    /// Its size.
    pub size: Option<u64>,
}

/// An answer, after redirects.
#[derive(Debug)]
pub struct Answer {
    /// What was asked for, before redirects.
    pub url: String,
    /// What the hub said on the way.
    pub linked: Linked,
    /// The last answer, whatever its status.
    pub response: Response<Body>,
    stall: Duration,
}

impl Answer {
    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.response, name)
    }

    /// What comes behind the head, as it comes.
    pub fn body(&mut self) -> Paced<impl Read> {
        Paced::new(self.response.body_mut().as_reader(), self.stall)
    }

    /// Whether a web page came.
    pub fn is_web_page(&self) -> bool {
        let kind = self.header("content-type").unwrap_or_default();
        kind.trim_start()
            .to_ascii_lowercase()
            .starts_with("text/html")
    }
}

fn header<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

/// A way to the hub.
#[derive(Debug)]
pub struct Client {
    agent: Agent,
    endpoint: Endpoint,
    token: Option<Secret>,
    stall: Duration,
}

impl Client {
    /// Reads the certificate authorities; opens no connection.
    ///
    /// # Errors
    ///
    /// Authorities that cannot be read; a token that would travel readable.
    pub fn new(settings: &HubSettings) -> Result<Client, HubError> {
        let origin = settings.endpoint.origin();
        let token = settings.token.as_ref().map(|(token, _)| token.clone());
        if token.is_some() && !origin.is_private() && !is_near(origin.host()) {
            return Err(HubError::PlainToken {
                host: origin.host().to_owned(),
            });
        }
        let longest = settings.stall.min(LONGEST_STALL);
        let stall = Some(longest);
        let mut config = Agent::config_builder()
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .timeout_resolve(stall)
            .timeout_connect(stall)
            .timeout_recv_response(stall)
            .timeout_per_read(stall)
            .timeout_per_write(stall)
            .user_agent(concat!("ocelli/", env!("CARGO_PKG_VERSION")));
        match tls_config(&settings.authorities) {
            Ok(tls) => config = config.tls_config(tls),
            Err(reason) if origin.is_private() => {
                return Err(HubError::Authorities {
                    path: settings.authorities.clone(),
                    reason,
                });
            }
            // A plain hub may never lead to an encrypted connection.
            Err(_) => {}
        }
        Ok(Client {
            agent: config.build().into(),
            endpoint: settings.endpoint.clone(),
            token,
            stall: longest,
        })
    }

    /// Where the hub is.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Asks for the files of a revision.
    ///
    /// # Errors
    ///
    /// See [`Failure`].
    pub fn list(&self, address: &Address) -> Result<Listing, Failure> {
        let mut answer = self.ask(Method::Get, &self.endpoint.listing(address), &[])?;
        check(&mut answer)?;
        let url = answer.url.clone();
        if answer.is_web_page() {
            return Err(HubError::WebPage { url }.into());
        }
        let mut body = Vec::new();
        let whole = answer
            .body()
            .take(MAX_LISTING_BYTES + 1)
            .read_to_end(&mut body);
        whole.map_err(|error| cut(&url, error))?;
        if body.len() as u64 > MAX_LISTING_BYTES {
            let limit = MAX_LISTING_BYTES;
            return Err(HubError::Endless { url, limit }.into());
        }
        Listing::read(&body).map_err(|reason| HubError::Listing { url, reason }.into())
    }

    /// Makes a request and follows redirects; the token goes to the hub alone.
    ///
    /// # Errors
    ///
    /// See [`Failure`]; a status is none.
    pub fn ask(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, String)],
    ) -> Result<Answer, Failure> {
        let mut at: Uri = url
            .parse()
            .map_err(|_| Failure::broken(url, "no address"))?;
        let mut linked = Linked::default();
        for _ in 0..=MAX_REDIRECTS {
            let response = self
                .once(method, &at, headers)
                .map_err(|e| failed(url, e))?;
            let id = header(&response, "x-linked-etag").and_then(ContentId::of_etag);
            let size = header(&response, "x-linked-size").and_then(|size| size.parse().ok());
            linked.id = linked.id.or(id);
            linked.size = linked.size.or(size);
            let status = response.status().as_u16();
            if !matches!(status, 301 | 302 | 303 | 307 | 308) {
                return Ok(Answer {
                    url: url.to_owned(),
                    linked,
                    response,
                    stall: self.stall,
                });
            }
            let location = header(&response, "location").unwrap_or_default();
            at = self.follow(url, &at, location)?;
        }
        Err(HubError::Redirect {
            url: url.to_owned(),
            location: at.to_string(),
            reason: "there are too many redirects; is HF_ENDPOINT a hub?",
        }
        .into())
    }

    fn once(
        &self,
        method: Method,
        at: &Uri,
        headers: &[(&str, String)],
    ) -> Result<Response<Body>, ureq::Error> {
        let mut request = match method {
            Method::Get => self.agent.get(at),
            Method::Head => self.agent.head(at),
        };
        // A compressed answer would have neither the length nor the ranges of the file.
        request = request.header("Accept-Encoding", "identity");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let is_hub = Origin::of(at).as_ref() == Some(self.endpoint.origin());
        if let (Some(token), true) = (&self.token, is_hub) {
            request = request.header("Authorization", format!("Bearer {}", token.reveal()));
        }
        request.call()
    }

    fn follow(&self, url: &str, from: &Uri, location: &str) -> Result<Uri, Failure> {
        let refuse = |reason| HubError::Redirect {
            url: url.to_owned(),
            location: location.chars().take(MAX_SHOWN_CHARS).collect(),
            reason,
        };
        let to = resolve(from, location).ok_or_else(|| refuse("that is no address"))?;
        let is_private = |uri: &Uri| Origin::of(uri).is_some_and(|origin| origin.is_private());
        match is_private(from) && !is_private(&to) {
            true => Err(refuse(
                "it leaves the encrypted connection; is there a network that wants you to log in first?",
            )
            .into()),
            false => Ok(to),
        }
    }
}

/// What an error of the connection means.
pub fn failed(url: &str, error: ureq::Error) -> Failure {
    match error {
        ureq::Error::Rustls(_) | ureq::Error::Tls(_) | ureq::Error::Pem(_) => {
            HubError::Connection {
                url: url.to_owned(),
                reason: error.to_string(),
            }
            .into()
        }
        ureq::Error::Timeout(_) => Failure::broken(url, "no byte came in time"),
        error => Failure::broken(url, error),
    }
}

/// What an error in the middle of a body means.
pub fn cut(url: &str, error: std::io::Error) -> Failure {
    match Slow::of(&error) {
        Some(slow) => Failure::Slow {
            url: url.to_owned(),
            slow,
        },
        None => failed(url, ureq::Error::from(error)),
    }
}

/// Turns a status that is no success into what it means.
///
/// # Errors
///
/// See [`Failure`].
pub fn check(answer: &mut Answer) -> Result<(), Failure> {
    let status = answer.response.status().as_u16();
    if (200..300).contains(&status) {
        return Ok(());
    }
    let after = answer.header("retry-after").and_then(retry_after);
    let said = answer.header("x-error-message").map(str::to_owned);
    let said = said.unwrap_or_else(|| {
        let mut begin = Vec::new();
        // What came before the connection broke is better than nothing.
        let _ = answer
            .body()
            .take(MAX_REFUSAL_BYTES)
            .read_to_end(&mut begin);
        String::from_utf8_lossy(&begin).into_owned()
    });
    Err(refusal(answer.url.clone(), status, shown(&said), after))
}

fn refusal(url: String, status: u16, text: String, after: Option<Duration>) -> Failure {
    let reason = match text.is_empty() {
        true => "no reason given".to_owned(),
        false => text,
    };
    match status {
        401 => HubError::Unauthorised { url }.into(),
        403 => HubError::Forbidden { url, reason }.into(),
        404 | 410 => HubError::NotFound { url, reason }.into(),
        408 | 429 | 500 | 502..=504 => Failure::Passing {
            url,
            reason: format!("status {status}: {reason}"),
            status: Some(status),
            after,
        },
        _ => HubError::Status {
            url,
            status,
            text: reason,
        }
        .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_never_leaves_an_encrypted_connection() {
        let settings = HubSettings::of(|name| match name {
            "HF_HOME" => Some("/nowhere".into()),
            "HF_ENDPOINT" => Some("http://127.0.0.1:1".into()),
            _ => None,
        });
        let client = Client::new(&settings.unwrap()).unwrap();
        for (from, location, followed) in [
            ("https://hub/a", "/b", true),
            ("https://hub/a", "https://cdn/b", true),
            ("https://hub/a", "http://hub/b", false),
            ("https://hub/a", "http://cdn/b", false),
            ("http://hub/a", "http://cdn/b", true),
            ("http://hub/a", "https://cdn/b", true),
        ] {
            let to = client.follow("u", &from.parse().unwrap(), location);
            assert_eq!(to.is_ok(), followed, "{from} to {location}");
        }
    }

    #[test]
    fn a_status_says_whether_trying_again_helps() {
        for (status, passing) in [
            (400, false),
            (401, false),
            (403, false),
            (404, false),
            (407, false),
            (408, true),
            (429, true),
            (451, false),
            (500, true),
            (501, false),
            (502, true),
            (503, true),
            (504, true),
        ] {
            let failure = refusal("u".into(), status, String::new(), None);
            let found = matches!(failure, Failure::Passing { .. });
            assert_eq!(found, passing, "{status}: {failure:?}");
        }
    }
}
