use super::*;
use crate::page::request::{Parsed, parse};
use crate::page::state::{AnswerShown, Fact, PendingAction, Picture};

const TOKEN: &str = "0123456789abcdef";
const CSRF: &str = "c5f0";

fn site(token: bool) -> Site {
    let settings = Settings {
        hosts: vec!["door.local".to_owned()],
        ..Settings::default()
    };
    let token = token.then(|| Secret::from(TOKEN));
    Site::new(&settings, token.as_ref(), CSRF.to_owned())
}

fn state() -> PageState {
    PageState {
        device: "door".to_owned(),
        pending: vec![
            PendingAction {
                request: 7,
                nonce: u64::MAX,
                may_decide: true,
                what: "open".to_owned(),
                ..PendingAction::default()
            },
            PendingAction {
                request: 8,
                ..PendingAction::default()
            },
        ],
        pictures: vec![Picture {
            name: "a.jpg".to_owned(),
            path: "/kept/a.jpg".into(),
        }],
        ..PageState::default()
    }
}

fn request(text: &str) -> Request {
    let bytes = text.replace('\n', "\r\n");
    match parse(bytes.as_bytes()) {
        Parsed::Whole(request) => request,
        other => panic!("{text}: {other:?}"),
    }
}

fn get(path: &str) -> Request {
    request(&format!("GET {path} HTTP/1.1\nHost: 127.0.0.1:8080\n\n"))
}

fn post(headers: &str, body: &str) -> Request {
    request(&format!(
        "POST /decide HTTP/1.1\nHost: 127.0.0.1:8080\n{headers}Content-Length: {}\n\n{body}",
        body.len()
    ))
}

/// Status of the answer, and what was decided.
fn ask(site: &Site, request: &Request) -> (u16, Option<Decision>) {
    let mut decided = None;
    let state = state();
    let view = View {
        state: &state,
        idle: Some(Duration::ZERO),
    };
    let response = site.answer(request, &view, &mut |decision| {
        decided = Some(decision);
        true
    });
    (response.status, decided)
}

fn page(state: &PageState) -> String {
    let view = View { state, idle: None };
    let response = site(false).answer(&get("/"), &view, &mut |_| false);
    let Body::Bytes(bytes) = response.body else {
        panic!("a file")
    };
    assert_eq!(response.status, 200, "{}", String::from_utf8_lossy(&bytes));
    String::from_utf8(bytes).unwrap()
}

#[test]
fn every_text_is_shown_as_text() {
    let evil = "<script>alert('1')</script>\"&";
    let text = || evil.to_owned();
    let page = page(&PageState {
        device: text(),
        status: text(),
        faults: vec![text()],
        facts: vec![Fact {
            name: text(),
            value: text(),
        }],
        answers: vec![AnswerShown {
            time: text(),
            rule: text(),
            question: text(),
            answer: text(),
            probability: Some(0.876),
            picture: Some(text()),
        }],
        pending: vec![PendingAction {
            what: text(),
            rule: text(),
            why: text(),
            until: text(),
            picture: Some(text()),
            may_decide: true,
            ..PendingAction::default()
        }],
        ..PageState::default()
    });
    assert!(!page.contains("<script"), "{page}");
    assert!(!page.contains("alert('"), "{page}");
    assert_eq!(page.matches("&lt;script&gt;").count(), 16, "{page}");
    assert!(page.contains("88 %"), "{page}");
}

#[test]
fn the_page_carries_what_a_decision_needs_and_nothing_from_elsewhere() {
    let page = page(&state());
    assert!(page.contains(r#"name="request" value="7""#), "{page}");
    assert!(page.contains(r#"name="nonce" value="18446744073709551615""#));
    assert!(page.contains(r#"name="csrf" value="c5f0""#));
    assert!(!page.contains(r#"name="request" value="8""#));
    assert!(!page.contains("://") && !page.contains("<link"), "{page}");
    assert!(page.contains(&format!("<style>{STYLE}</style>")));
}

#[test]
fn numbers_in_json_are_texts_and_paths_stay_inside() {
    let json = serde_json::to_string(&state()).unwrap();
    assert!(json.contains(r#""nonce":"18446744073709551615""#), "{json}");
    assert!(!json.contains("/kept"), "{json}");
}

#[test]
fn only_known_names_and_addresses_are_hosts() {
    for (host, status) in [
        ("127.0.0.1:8080", 200),
        ("127.0.0.1", 200),
        ("192.168.1.5:80", 200),
        ("[::1]:8080", 200),
        ("[::1]", 200),
        ("localhost:8080", 200),
        ("LOCALHOST", 200),
        ("door.local:8080", 200),
        ("evil.example", 421),
        ("evil.example:8080", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("127.0.0.1:8080@evil", 421),
        ("", 421),
    ] {
        let request = request(&format!("GET / HTTP/1.1\nHost: {host}\n\n"));
        assert_eq!(ask(&site(false), &request).0, status, "{host}");
    }
}

#[test]
fn with_a_token_all_but_health_asks_for_it() {
    let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
    for (path, authorization, status) in [
        ("/", String::new(), 401),
        ("/", format!("Bearer {TOKEN}"), 200),
        ("/", format!("bearer {TOKEN}"), 200),
        ("/", format!("Bearer {TOKEN}x"), 401),
        ("/", "Bearer ".to_owned(), 401),
        ("/", TOKEN.to_owned(), 401),
        ("/", basic(&format!("anybody:{TOKEN}")), 200),
        ("/", basic(&format!("{TOKEN}:")), 401),
        ("/", basic(TOKEN), 401),
        ("/", "Basic ???".to_owned(), 401),
        ("/state.json", String::new(), 401),
        ("/metrics", String::new(), 401),
        ("/snapshot/a.jpg", String::new(), 401),
        ("/snapshot/a.jpg", format!("Bearer {TOKEN}"), 200),
        ("/health", String::new(), 200),
    ] {
        let request = Request {
            authorization: Some(authorization.clone()).filter(|text| !text.is_empty()),
            ..get(path)
        };
        assert_eq!(
            ask(&site(true), &request).0,
            status,
            "{path} {authorization}"
        );
    }
}

#[test]
fn only_our_own_page_decides() {
    let sound = format!("request=7&nonce=5&decision=allow&csrf={CSRF}");
    let without = "request=7&nonce=5&decision=allow";
    let basic = format!(
        "Authorization: Basic {}\n",
        STANDARD.encode(format!("a:{TOKEN}"))
    );
    let bearer = format!("Authorization: Bearer {TOKEN}\n");
    for (token, headers, body, status) in [
        (false, "", sound.as_str(), 303),
        (false, "Origin: http://127.0.0.1:8080\n", &sound, 303),
        (false, "Sec-Fetch-Site: same-origin\n", &sound, 303),
        (false, "Origin: http://evil.example\n", &sound, 403),
        (false, "Origin: http://127.0.0.1:9090\n", &sound, 403),
        (false, "Origin: null\n", &sound, 403),
        (false, "Sec-Fetch-Site: cross-site\n", &sound, 403),
        (false, "Sec-Fetch-Site: same-site\n", &sound, 403),
        (false, "", without, 403),
        (
            false,
            "",
            "request=7&nonce=5&decision=allow&csrf=other",
            403,
        ),
        (true, "", &sound, 401),
        (true, &basic, without, 403),
        (true, &basic, &sound, 303),
        (true, &bearer, without, 303),
    ] {
        let (got, decided) = ask(&site(token), &post(headers, body));
        assert_eq!(got, status, "{headers}{body}");
        let want = (status == 303).then_some(Decision {
            request: 7,
            nonce: 5,
            granted: true,
        });
        assert_eq!(decided, want, "{headers}{body}");
    }
    assert_eq!(ask(&site(false), &get("/decide")), (405, None));
}

#[test]
fn a_form_is_whole_or_refused() {
    for (body, status) in [
        ("request=7&nonce=5&decision=deny&csrf=c5f0", 303),
        ("request=8&nonce=5&decision=allow&csrf=c5f0", 403),
        ("request=9&nonce=5&decision=allow&csrf=c5f0", 409),
        ("request=7&nonce=5&decision=yes&csrf=c5f0", 400),
        ("request=7&nonce=5&csrf=c5f0", 400),
        ("request=7&nonce=-5&decision=allow&csrf=c5f0", 400),
        ("request=7&request=7&nonce=5&decision=allow&csrf=c5f0", 400),
        (
            "request=7&nonce=5&decision=deny&decision=allow&csrf=c5f0",
            400,
        ),
        ("request=7&nonce=5&decision=allow&csrf=c5f0&more=1", 400),
        ("", 400),
        ("\u{0}", 400),
    ] {
        assert_eq!(ask(&site(false), &post("", body)).0, status, "{body}");
    }
}

#[test]
fn only_offered_pictures_exist() {
    for (path, status) in [
        ("/snapshot/a.jpg", 200),
        ("/snapshot/b.jpg", 404),
        ("/snapshot/../a.jpg", 404),
        ("/snapshot//kept/a.jpg", 404),
        ("/snapshot/%61.jpg", 404),
        ("/snapshot/", 404),
        ("/a.jpg", 404),
        ("/etc/passwd", 404),
    ] {
        assert_eq!(ask(&site(false), &get(path)).0, status, "{path}");
    }
}

#[test]
fn health_follows_the_progress_of_the_loop() {
    let state = state();
    for (idle, status) in [
        (None, 503),
        (Some(0), 200),
        (Some(30), 200),
        (Some(31), 503),
    ] {
        let view = View {
            state: &state,
            idle: idle.map(Duration::from_secs),
        };
        let response = site(true).answer(&get("/health"), &view, &mut |_| false);
        assert_eq!(response.status, status, "{idle:?}");
    }
}
