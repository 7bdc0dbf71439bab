//! [`Request`]: the bytes a browser sends, and nothing we do not use of them.

use httparse::{EMPTY_HEADER, Status};

/// Longest request line with headers, in bytes.
pub const MAX_HEAD_BYTES: usize = 8 << 10;
/// Longest body, in bytes.
pub const MAX_BODY_BYTES: usize = 8 << 10;
/// Most headers.
const MAX_HEADERS: usize = 64;

/// What may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The content.
    Get,
    /// Only its headers.
    Head,
    /// A decision.
    Post,
}

/// A whole request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is asked.
    pub method: Method,
    /// Path without query.
    pub path: String,
    /// `Host`, with its port if one is given.
    pub host: String,
    /// `Origin`.
    pub origin: Option<String>,
    /// `Sec-Fetch-Site`.
    pub fetch_site: Option<String>,
    /// `Authorization`.
    pub authorization: Option<String>,
    /// Body, at most [`MAX_BODY_BYTES`].
    pub body: Vec<u8>,
}

/// Why a request is refused before anybody looks at what it asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Status of the answer.
    pub status: u16,
    /// What to do.
    pub text: &'static str,
}

/// What bytes are so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The begin of a request.
    More,
    /// A request.
    Whole(Request),
    /// None.
    Bad(Refusal),
}

/// Reads a request from all bytes that came so far.
pub fn parse(bytes: &[u8]) -> Parsed {
    match read(bytes) {
        Ok(Some(request)) => Parsed::Whole(request),
        Ok(None) => Parsed::More,
        Err(refusal) => Parsed::Bad(refusal),
    }
}

fn refuse<T>(status: u16, text: &'static str) -> Result<T, Refusal> {
    Err(Refusal { status, text })
}

fn read(bytes: &[u8]) -> Result<Option<Request>, Refusal> {
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    let n_head = match head.parse(&bytes[..bytes.len().min(MAX_HEAD_BYTES)]) {
        Ok(Status::Complete(n)) => n,
        Ok(Status::Partial) if bytes.len() < MAX_HEAD_BYTES => return Ok(None),
        Ok(Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return refuse(431, "The request's headers are too long.");
        }
        Err(_) => return refuse(400, "This is no HTTP request."),
    };
    let method = match head.method {
        Some("GET") => Method::Get,
        Some("HEAD") => Method::Head,
        Some("POST") => Method::Post,
        _ => return refuse(405, "Only GET, HEAD and POST are understood."),
    };
    let target = head.path.unwrap_or("");
    let path = target.split('?').next().unwrap_or("");
    if !path.starts_with('/') {
        return refuse(400, "The address must begin with /.");
    }
    let one = |name: &str| one_header(head.headers, name);
    if one("transfer-encoding")?.is_some() {
        return refuse(411, "Send the body with Content-Length.");
    }
    let length = one("content-length")?.map_or(Ok(0), |text| number(&text))?;
    if length > MAX_BODY_BYTES {
        return refuse(413, "The body is too long.");
    }
    let Some(host) = one("host")? else {
        return refuse(400, "The request names no host.");
    };
    let Some(body) = bytes.get(n_head..n_head + length) else {
        return Ok(None);
    };
    Ok(Some(Request {
        method,
        path: path.to_owned(),
        host,
        origin: one("origin")?,
        fetch_site: one("sec-fetch-site")?,
        authorization: one("authorization")?,
        body: body.to_vec(),
    }))
}

/// A header that may be there once.
fn one_header(headers: &[httparse::Header<'_>], name: &str) -> Result<Option<String>, Refusal> {
    let mut found = headers
        .iter()
        .filter(|header| header.name.eq_ignore_ascii_case(name));
    let Some(header) = found.next() else {
        return Ok(None);
    };
    match std::str::from_utf8(header.value) {
        Ok(text) if found.next().is_none() => Ok(Some(text.trim().to_owned())),
        _ => refuse(400, "A header is there twice or is no text."),
    }
}

fn number(text: &str) -> Result<usize, Refusal> {
    let digits = (1..=9).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse() {
        Ok(number) if digits => Ok(number),
        _ => refuse(400, "Content-Length is no number."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POST: &[u8] = b"POST /decide?x=1 HTTP/1.1\r\nhost: a\r\nOrigin: http://a\r\n\
        Content-Length: 3\r\n\r\nabc";

    #[test]
    fn a_request_is_whole_only_with_its_body() {
        for n in 0..POST.len() {
            assert_eq!(parse(&POST[..n]), Parsed::More, "{n} bytes");
        }
        let Parsed::Whole(request) = parse(POST) else {
            panic!("{:?}", parse(POST));
        };
        assert_eq!(
            (request.method, request.path.as_str()),
            (Method::Post, "/decide")
        );
        assert_eq!(request.origin.as_deref(), Some("http://a"));
        assert_eq!(request.body, b"abc");
    }

    #[test]
    fn strange_requests_are_refused() {
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "x: y\r\n".repeat(64));
        let long = format!(
            "GET / HTTP/1.1\r\nHost: a\r\nx: {}\r\n\r\n",
            "y".repeat(9000)
        );
        for (request, status) in [
            ("\u{16}\u{3}\u{1}", 400),
            ("BREW / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
            ("GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
                411,
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc",
                400,
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc",
                400,
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
                400,
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8193\r\n\r\n",
                413,
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
                400,
            ),
            (many.as_str(), 431),
            (long.as_str(), 431),
        ] {
            let Parsed::Bad(refusal) = parse(request.as_bytes()) else {
                panic!("{request:.80}");
            };
            assert_eq!(refusal.status, status, "{request:.80}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic_and_within_bounds(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let mut request = b"POST / HTTP/1.1\r\nHost: a\r\n".to_vec();
            request.extend(&bytes);
            for input in [&bytes, &request] {
                if let Parsed::Whole(request) = parse(input) {
                    prop_assert!(request.body.len() <= MAX_BODY_BYTES);
                    prop_assert!(request.path.starts_with('/'));
                }
            }
        }
    }
}
