//! The hub's protocol, one misbehaviour a test.

use crate::server::{Body, COMMIT, Published, Reply, Request, Server, content, part, sha256};
use crate::{Desk, Heard, TOKEN, address, fetch, fetch_of, names, repository};
use ocelli_agent::hub::digest::ContentId;
use ocelli_agent::hub::{Hub, HubError};
use serde_json::json;
use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

const FILE: &str = "model.safetensors";

/// Long enough to be cut in several places.
fn weights() -> Vec<u8> {
    (0..200_000u32).flat_map(|n| n.to_le_bytes()).collect()
}

fn published() -> Published {
    Published::of(&[(FILE, &weights()), ("config.json", b"{}")])
}

/// A good hub, but for the content of `FILE`.
fn but(answer: impl Fn(&Request, usize, &[u8]) -> Reply + Send + Sync + 'static) -> Server {
    let published = published();
    Server::start(move |request, before| match request.is_for(FILE) {
        true => answer(request, before, &published.files[FILE]),
        false => published.answer(request),
    })
}

fn etag(bytes: &[u8]) -> String {
    format!("\"{}\"", sha256(bytes))
}

/// Fetches `FILE` and compares it.
fn fetches(desk: &Desk, server: &Server) -> Heard {
    let mut heard = Heard::default();
    let fetched = fetch(&desk.hub(server), FILE, &mut heard);
    let fetched = fetched.unwrap_or_else(|error| panic!("{error}"));
    assert!(fs::read(&fetched.path).expect("the file is there") == weights());
    let left = desk.blobs(server);
    assert_eq!(left, [sha256(&weights())], "nothing else is left");
    heard
}

/// Fails to fetch `FILE`; nothing may look fetched.
fn fails(desk: &Desk, server: &Server) -> HubError {
    let error = fetch(&desk.hub(server), FILE, &mut Heard::default());
    let error = error.expect_err("it cannot be fetched");
    let cached = desk.cached(server);
    assert!(!cached.file(COMMIT, FILE).exists(), "{error}");
    let blobs = desk.blobs(server);
    assert!(!blobs.contains(&sha256(&weights())), "{error}: {blobs:?}");
    error
}

#[test]
fn a_file_is_fetched_once_and_then_found() {
    let (desk, server) = (Desk::new(), Server::good(published()));
    let heard = fetches(&desk, &server);
    assert!(heard.retries.is_empty(), "{:?}", heard.retries);
    let again = fetch(&desk.hub(&server), FILE, &mut Heard::default()).expect("it is there");
    assert!(again.was_cached);
    assert_eq!(server.requests_for(FILE).len(), 1);
    let main = fs::read_to_string(desk.cached(&server).dir().join("refs/main"));
    assert_eq!(main.expect("a reference"), COMMIT);
}

#[test]
fn a_content_that_another_commit_had_is_linked() {
    let (desk, server) = (Desk::new(), Server::good(published()));
    let id = ContentId::parse(&sha256(&weights())).expect("a hash");
    let cached = desk.cached(&server);
    fs::create_dir_all(cached.dir().join("blobs")).expect("a folder");
    fs::write(cached.blob(id), weights()).expect("a file");
    fetches(&desk, &server);
    assert_eq!(server.requests_for(FILE).len(), 0);
}

#[test]
fn a_content_of_another_size_is_fetched_anew() {
    let (desk, server) = (Desk::new(), Server::good(published()));
    let id = ContentId::parse(&sha256(&weights())).expect("a hash");
    let cached = desk.cached(&server);
    fs::create_dir_all(cached.dir().join("blobs")).expect("a folder");
    fs::write(cached.blob(id), &weights()[1..]).expect("a file");
    fetches(&desk, &server);
    assert_eq!(server.requests_for(FILE).len(), 1);
}

#[test]
fn a_small_file_is_checked_as_git_names_it() {
    let server = Server::start(|request, _| match request.path.contains("/api/") {
        true => {
            let id = "ce013625030ba8dba906f756967f9e9ca394464a";
            let files = json!([{ "rfilename": "a", "size": 6, "blobId": id },
                { "rfilename": "b", "size": 6, "blobId": id.replace("ce", "cf") }]);
            Reply::new(200, json!({ "sha": COMMIT, "siblings": files }).to_string())
        }
        false => content(request, b"hello\n", "\"x\""),
    });
    let desk = Desk::new();
    fetch(&desk.hub(&server), "a", &mut Heard::default()).expect("the right content");
    let error = fetch(&desk.hub(&server), "b", &mut Heard::default());
    assert!(matches!(error, Err(HubError::Hash { .. })), "{error:?}");
}

#[test]
fn the_token_stays_with_the_hub() {
    let elsewhere = Server::start(|request, _| content(request, &weights(), "\"cdn\""));
    let to = format!("{}/bytes", elsewhere.endpoint());
    let server = but(move |_, _, bytes| {
        Reply::redirect(&to)
            .with("X-Linked-ETag", etag(bytes))
            .with("X-Linked-Size", bytes.len())
    });
    fetches(&Desk::new(), &server);
    let bearer = format!("Bearer {TOKEN}");
    for request in server.log() {
        assert_eq!(
            request.header("authorization"),
            Some(bearer.as_str()),
            "{request:?}"
        );
    }
    let log = elsewhere.log();
    assert_eq!(log.len(), 1);
    assert_eq!(log[0].header("authorization"), None);
}

#[test]
fn a_redirect_that_leads_nowhere_is_an_error() {
    for location in ["file:///etc/passwd", "", "/owner/name/resolve/again"] {
        let server = Server::start(move |request, _| match request.path.contains("/api/") {
            true => published().answer(request),
            false => Reply::redirect(location),
        });
        let error = fails(&Desk::new(), &server);
        assert!(
            matches!(error, HubError::Redirect { .. }),
            "{location}: {error}"
        );
    }
}

#[test]
fn a_cut_transfer_goes_on_where_it_stopped() {
    let server = but(|request, before, bytes| {
        let whole = content(request, bytes, "\"v1\"");
        let rest = match &whole.body {
            Body::Whole(rest) => rest.clone(),
            _ => unreachable!("content is whole"),
        };
        match before {
            0 | 1 => whole.body(Body::Cut(rest[..100_000].to_vec(), rest.len())),
            _ => whole,
        }
    });
    let heard = fetches(&Desk::new(), &server);
    assert_eq!(heard.retries.len(), 2, "{:?}", heard.retries);
    let requests = server.requests_for(FILE);
    let starts: Vec<_> = requests.iter().map(Request::start).collect();
    assert_eq!(starts, [None, Some(100_000), Some(200_000)]);
    assert_eq!(requests[1].header("if-range"), Some("\"v1\""));
}

#[test]
fn a_later_process_goes_on_where_an_earlier_one_stopped() {
    let server = but(|request, before, bytes| match before {
        0 => {
            content(request, bytes, "\"v1\"").body(Body::Cut(bytes[..70_000].to_vec(), bytes.len()))
        }
        1..4 => Reply::new(503, "").with("Retry-After", 0),
        _ => content(request, bytes, "\"v1\""),
    });
    let desk = Desk::new();
    let mut settings = desk.settings(&server);
    settings.retries = 1;
    let hub = Hub::new(settings).expect("a hub");
    let error = fetch(&hub, FILE, &mut Heard::default());
    assert!(matches!(error, Err(HubError::GivenUp { .. })), "{error:?}");
    fetches(&desk, &server);
    let last = server.requests_for(FILE).pop().expect("a request");
    assert_eq!(last.start(), Some(70_000));
    assert_eq!(last.header("if-range"), Some("\"v1\""));
}

#[test]
fn a_file_that_changed_between_two_ranges_is_begun_anew() {
    // Politely: the validator no longer fits, so the whole comes. Rudely: a range of another file.
    for is_polite in [true, false] {
        let server = but(move |request, before, bytes| match (before, is_polite) {
            (0, _) => {
                content(request, bytes, "\"v1\"").body(Body::Cut(vec![0xEE; 100_000], bytes.len()))
            }
            (1, false) => part(bytes, request.start().unwrap_or(0)).with("ETag", "\"v2\""),
            _ => content(request, bytes, "\"v2\""),
        });
        fetches(&Desk::new(), &server);
        let requests = server.requests_for(FILE);
        assert_eq!(requests.len(), if is_polite { 2 } else { 3 });
    }
}

#[test]
fn a_server_without_ranges_sends_the_whole_again() {
    let server = but(|_, before, bytes| match before {
        0 => Reply::new(200, "").body(Body::Cut(bytes[..100_000].to_vec(), bytes.len())),
        _ => Reply::new(200, bytes),
    });
    fetches(&Desk::new(), &server);
    assert_eq!(server.requests_for(FILE)[1].start(), Some(100_000));
}

#[test]
fn a_server_that_cannot_go_on_is_asked_for_the_whole() {
    let server = but(|request, before, bytes| match (before, request.start()) {
        (0, _) => Reply::new(200, "").body(Body::Cut(bytes[..100_000].to_vec(), bytes.len())),
        (_, Some(_)) => Reply::new(416, "").with("Content-Range", "bytes */1"),
        (_, None) => Reply::new(200, bytes),
    });
    fetches(&Desk::new(), &server);
    assert_eq!(server.requests_for(FILE).len(), 3);
}

#[test]
fn a_server_that_sends_another_part_is_asked_for_the_whole() {
    let server = but(|_, before, bytes| match before {
        0 => Reply::new(200, "").body(Body::Cut(bytes[..100_000].to_vec(), bytes.len())),
        1 => part(bytes, 50_000),
        _ => Reply::new(200, bytes),
    });
    fetches(&Desk::new(), &server);
}

#[test]
fn bytes_that_come_again_after_a_new_start_are_no_progress() {
    // Begins, breaks off, goes on with another file: as often as it is asked, for a long while.
    let server = but(|request, before, bytes| match (before, request.start()) {
        (40.., _) => content(request, bytes, "\"v1\""),
        (_, None) => content(request, bytes, "\"v1\"")
            .body(Body::Cut(bytes[..100_000].to_vec(), bytes.len())),
        (_, Some(start)) => part(bytes, start).with("ETag", "\"v2\""),
    });
    let error = fails(&Desk::new(), &server);
    assert!(matches!(error, HubError::GivenUp { .. }), "{error}");
    // The first hundred thousand bytes were progress; three more tries were not.
    assert_eq!(server.requests_for(FILE).len(), 4);
}

#[test]
fn a_stall_longer_than_the_clock_can_hold_is_no_panic() {
    let (desk, server) = (Desk::new(), Server::good(published()));
    let mut settings = desk.settings(&server);
    settings.stall = Duration::MAX;
    let hub = Hub::new(settings).expect("a hub");
    fetch(&hub, FILE, &mut Heard::default()).expect("it comes");
}

#[test]
fn a_link_in_place_of_a_partial_file_is_not_written_through() {
    let (desk, server) = (Desk::new(), Server::good(published()));
    let mine = desk.home.path().join("mine");
    fs::write(&mine, "mine").expect("a file");
    let id = ContentId::parse(&sha256(&weights())).expect("a hash");
    let path = desk.cached(&server).incomplete(id);
    fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
    symlink(&mine, &path).expect("a link");
    let error = fails(&desk, &server);
    assert!(matches!(error, HubError::File { .. }), "{error}");
    assert_eq!(fs::read_to_string(&mine).expect("a file"), "mine");
}

#[test]
fn a_stalled_transfer_is_given_up_and_resumed() {
    let server = but(|request, before, bytes| match before {
        0 => content(request, bytes, "\"v\"")
            .body(Body::Stall(bytes[..100_000].to_vec(), bytes.len())),
        1 => Reply::new(206, "")
            .body(Body::Stall(Vec::new(), 1))
            .with(
                "Content-Range",
                format!("bytes 100000-{}/{}", bytes.len() - 1, bytes.len()),
            )
            .with("ETag", "\"v\""),
        _ => content(request, bytes, "\"v\""),
    });
    let desk = Desk::new();
    let mut settings = desk.settings(&server);
    settings.stall = Duration::from_millis(300);
    settings.retries = 20;
    let hub = Hub::new(settings).expect("a hub");
    let mut heard = Heard::default();
    let fetched = fetch(&hub, FILE, &mut heard).unwrap_or_else(|error| panic!("{error}"));
    assert!(fs::read(fetched.path).expect("the file is there") == weights());
    assert!(heard.retries.len() >= 2, "{:?}", heard.retries);
    assert!(
        heard.retries[0].contains("no byte came in time"),
        "{:?}",
        heard.retries
    );
    let last = server.requests_for(FILE).pop().expect("a request");
    assert_eq!(last.start(), Some(100_000));
}

/// A hub that does not wait long.
fn impatient(desk: &Desk, server: &Server) -> Hub {
    let mut settings = desk.settings(server);
    settings.stall = Duration::from_millis(400);
    Hub::new(settings).expect("a hub")
}

#[test]
fn a_trickle_is_given_up_and_resumed() {
    let server = but(|request, before, bytes| match before {
        0 => content(request, bytes, "\"v\"").body(Body::Trickle(bytes.to_vec(), bytes.len(), 200)),
        _ => content(request, bytes, "\"v\""),
    });
    let (desk, mut heard) = (Desk::new(), Heard::default());
    let fetched = fetch(&impatient(&desk, &server), FILE, &mut heard);
    let fetched = fetched.unwrap_or_else(|error| panic!("{error}"));
    assert!(fs::read(fetched.path).expect("the file is there") == weights());
    assert!(heard.retries[0].contains("too slow"), "{:?}", heard.retries);
    let last = server.requests_for(FILE).pop().expect("a request");
    assert!(last.start().is_some_and(|start| start > 0), "{last:?}");
}

/// Each try brings 40 kB; two together would count as progress, and so for ever.
#[test]
fn a_trickle_at_every_try_ends() {
    let server = but(|request, _, bytes| {
        let rest = bytes[request.start().unwrap_or(0)..].to_vec();
        let len = rest.len();
        content(request, bytes, "\"v\"").body(Body::Trickle(rest, len, 500))
    });
    let desk = Desk::new();
    let error = fetch(&impatient(&desk, &server), FILE, &mut Heard::default());
    let error = error.expect_err("it never ends");
    assert!(
        matches!(error, HubError::GivenUp { tries: 4, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("too slow"), "{error}");
}

#[test]
fn a_list_and_a_refusal_that_trickle_end() {
    let long = || Body::Trickle(vec![b'['; 1 << 20], 1 << 20, 200);
    let server = Server::start(move |_, _| Reply::new(200, "").body(long()));
    let desk = Desk::new();
    let error = fetch(&impatient(&desk, &server), FILE, &mut Heard::default());
    let error = error.expect_err("the list never ends");
    assert!(matches!(error, HubError::GivenUp { .. }), "{error}");

    let refusal = || Body::Trickle(b"ask them ".repeat(400), 3600, 1);
    let server = but(move |_, _, _| Reply::new(403, "").body(refusal()));
    let error = fetch(&impatient(&desk, &server), FILE, &mut Heard::default());
    let error = error.expect_err("it is forbidden").to_string();
    assert!(error.contains("ask them"), "{error}");
}

#[test]
fn a_wrong_content_is_thrown_away() {
    let server = but(|request, _, bytes| {
        let mut bytes = bytes.to_vec();
        bytes[77] ^= 1;
        content(request, &bytes, "\"v\"")
    });
    let desk = Desk::new();
    let error = fails(&desk, &server);
    assert!(matches!(error, HubError::Hash { .. }), "{error}");
    assert_eq!(desk.blobs(&server), Vec::<String>::new());
    assert_eq!(server.requests_for(FILE).len(), 1);
}

#[test]
fn garbage_that_an_earlier_process_left_costs_one_new_start() {
    for bytes in [
        vec![0xEE; 100_000],
        vec![0xEE; weights().len()],
        vec![0; 1 << 20],
    ] {
        let (desk, server) = (Desk::new(), Server::good(published()));
        let id = ContentId::parse(&sha256(&weights())).expect("a hash");
        let path = desk.cached(&server).incomplete(id);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(&path, bytes).expect("a file");
        fetches(&desk, &server);
    }
}

#[test]
fn the_hub_and_its_list_must_agree_on_the_content() {
    let server = but(|request, _, bytes| {
        content(request, bytes, "\"v\"").with("X-Linked-ETag", etag(b"another"))
    });
    let error = fails(&Desk::new(), &server);
    assert!(matches!(error, HubError::Hash { .. }), "{error}");
}

#[test]
fn a_status_says_what_to_do() {
    for (status, code, wanted) in [
        (401, 3, "HF_TOKEN"),
        (403, 3, "accept the model's conditions"),
        (404, 3, "check the name"),
        (418, 1, "418"),
    ] {
        let server = but(move |_, _, _| Reply::new(status, "reason"));
        let error = fails(&Desk::new(), &server);
        assert_eq!(error.exit_code(), code, "{error}");
        assert!(error.to_string().contains(wanted), "{error}");
        assert_eq!(server.requests_for(FILE).len(), 1, "{status}");
    }
    // A page without end says enough with its first words.
    for long in [Body::Whole(b"ask them ".repeat(9_000)), Body::Endless] {
        let server = but(move |_, _, _| Reply::new(403, "").body(long.clone()));
        let error = fails(&Desk::new(), &server).to_string();
        assert!(
            error.contains("ask them") || error.contains("xxxx"),
            "{error}"
        );
        assert!(error.len() < 500, "{error}");
    }
    let nobody = Server::start(|_, _| Reply::new(404, ""));
    let error = fails(&Desk::new(), &nobody);
    assert!(matches!(error, HubError::NotFound { .. }), "{error}");
}

#[test]
fn a_busy_server_is_asked_again_but_not_for_ever() {
    for status in [429, 500, 503] {
        let busy = move |_: &Request| Reply::new(status, "busy").with("Retry-After", 0);
        let server = but(move |request, before, bytes| match before {
            0 | 1 => busy(request),
            _ => content(request, bytes, "\"v\""),
        });
        let heard = fetches(&Desk::new(), &server);
        assert_eq!(heard.retries.len(), 2, "{:?}", heard.retries);

        let server = but(move |request, _, _| busy(request));
        let error = fails(&Desk::new(), &server);
        assert!(
            matches!(error, HubError::GivenUp { tries: 4, .. }),
            "{error}"
        );
        assert_eq!(server.requests_for(FILE).len(), 4);
    }
    let server = but(|_, _, _| Reply::new(429, "").with("Retry-After", 86_400));
    let error = fails(&Desk::new(), &server);
    assert!(matches!(error, HubError::TooBusy { .. }), "{error}");
}

#[test]
fn a_web_page_is_not_taken_for_a_model() {
    let page = || {
        Reply::new(200, "<html>Welcome to the hotel</html>")
            .with("Content-Type", "text/html; charset=utf-8")
    };
    let server = but(move |_, _, _| page());
    let error = fails(&Desk::new(), &server);
    assert!(matches!(error, HubError::WebPage { .. }), "{error}");
    let server = Server::start(move |_, _| page());
    let error = fails(&Desk::new(), &server);
    assert!(matches!(error, HubError::WebPage { .. }), "{error}");
}

#[test]
fn a_server_that_lies_about_the_length_is_refused() {
    let longer = but(|_, _, bytes| Reply::new(200, [bytes, &[0]].concat()));
    let shorter = but(|_, _, bytes| Reply::new(200, &bytes[1..]));
    let total = but(|_, before, bytes| match before {
        0 => Reply::new(200, "").body(Body::Cut(bytes[..100_000].to_vec(), bytes.len())),
        _ => part(&[bytes, &[0; 9][..]].concat(), 100_000),
    });
    for server in [longer, shorter, total] {
        let error = fails(&Desk::new(), &server);
        assert!(matches!(error, HubError::Length { .. }), "{error}");
    }
}

#[test]
fn a_body_without_end_is_left() {
    let server = but(|_, _, _| Reply::new(200, "").body(Body::Endless));
    let desk = Desk::new();
    let error = fails(&desk, &server);
    assert!(matches!(error, HubError::Endless { .. }), "{error}");
    assert_eq!(desk.blobs(&server), Vec::<String>::new());
    let server = Server::start(|_, _| Reply::new(200, "").body(Body::Endless));
    let error = fails(&Desk::new(), &server);
    assert!(matches!(error, HubError::Endless { .. }), "{error}");
}

#[test]
fn a_list_that_names_paths_outside_is_refused_as_a_whole() {
    for path in ["../x", "/tmp/x", "a/../../x"] {
        let mut published = published();
        published.files.insert(path.to_owned(), b"x".to_vec());
        let desk = Desk::new();
        let error = fails(&desk, &Server::good(published));
        assert!(matches!(error, HubError::Listing { .. }), "{error}");
        assert!(error.to_string().contains(&format!("{path:?}")), "{error}");
        assert_eq!(names(desk.home.path()), Vec::<String>::new());
    }
}

#[test]
fn a_list_without_hashes_is_completed_by_the_files_heads() {
    let server = Server::start(|request, _| {
        let published = published();
        match request.path.contains("/api/") {
            true => {
                let files = json!([{ "rfilename": FILE }]);
                Reply::new(200, json!({ "sha": COMMIT, "siblings": files }).to_string())
            }
            false => published.answer(request),
        }
    });
    fetches(&Desk::new(), &server);
    let methods: Vec<_> = server
        .requests_for(FILE)
        .into_iter()
        .map(|r| r.method)
        .collect();
    assert_eq!(methods, ["HEAD", "GET"]);

    let nameless = Server::start(|request, _| match request.path.contains("/api/") {
        true => {
            let files = json!([{ "rfilename": FILE }]);
            Reply::new(200, json!({ "sha": COMMIT, "siblings": files }).to_string())
        }
        false => content(request, &weights(), "\"no-hash\""),
    });
    let error = fails(&Desk::new(), &nameless);
    assert!(matches!(error, HubError::NoHash { .. }), "{error}");
}

#[test]
fn offline_nothing_is_asked() {
    let (desk, server) = (Desk::new(), Server::good(published()));
    fetches(&desk, &server);
    let before = server.log().len();
    let mut settings = desk.settings(&server);
    settings.offline = true;
    let hub = Hub::new(settings.clone()).expect("a hub");
    let fetched = fetch(&hub, FILE, &mut Heard::default()).expect("it is there");
    assert!(fetched.was_cached);
    settings.cache = desk.home.path().join("empty");
    let hub = Hub::new(settings).expect("a hub");
    let error = hub.list(&address(), &mut Heard::default());
    assert!(matches!(error, Err(HubError::Offline { .. })), "{error:?}");
    assert_eq!(server.log().len(), before);
}

#[test]
fn two_transfers_of_one_content_wait_for_each_other() {
    let (desk, server) = (Desk::new(), Server::good(published()));
    let hub = desk.hub(&server);
    let listing = hub.list(&address(), &mut Heard::default()).expect("a list");
    let cached = hub.cached(&repository());
    let lock = cached
        .lock(&sha256(&weights()), &mut Heard::default())
        .expect("a lock");
    let (told, hear) = std::sync::mpsc::channel();
    struct Tells(std::sync::mpsc::Sender<()>);
    impl ocelli_agent::hub::Watcher for Tells {
        fn bytes(&mut self, _: &str, _: u64, _: Option<u64>) {}
        fn retry(&mut self, _: &str, _: Duration) {}
        fn waiting(&mut self, _: &std::path::Path) {
            self.0.send(()).expect("somebody hears");
        }
    }
    std::thread::scope(|scope| {
        let hub = &hub;
        let listing = &listing;
        let other = scope.spawn(move || {
            let file = listing.file(FILE).expect("it is listed");
            hub.fetch(&repository(), listing, file, &mut Tells(told))
        });
        hear.recv().expect("it waits");
        assert_eq!(server.requests_for(FILE).len(), 0);
        drop(lock);
        other.join().expect("no panic").expect("it is fetched");
    });
    let again = fetch_of(&hub, &listing, FILE, &mut Heard::default()).expect("it is there");
    assert!(again.was_cached);
    assert_eq!(server.requests_for(FILE).len(), 1);
}

#[test]
fn a_token_does_not_travel_readable_into_the_world() {
    let (desk, server) = (Desk::new(), Server::good(published()));
    let mut settings = desk.settings(&server);
    settings.endpoint = "http://hub.example".parse().expect("an endpoint");
    let error = Hub::new(settings.clone()).map(drop);
    assert!(
        matches!(error, Err(HubError::PlainToken { .. })),
        "{error:?}"
    );
    settings.token = None;
    assert!(Hub::new(settings).is_ok());
}
