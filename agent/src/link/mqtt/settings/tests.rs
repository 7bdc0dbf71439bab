use super::*;

fn parse(text: &str) -> Result<Settings, String> {
    let settings: Settings = toml::from_str(text).map_err(|fault| fault.to_string())?;
    settings.names("porch").map_err(|fault| fault.to_string())?;
    Ok(settings)
}

#[test]
fn a_host_is_enough() {
    let settings = parse("host = \"broker\"").unwrap();
    assert_eq!(settings, Settings::to_host("broker"));
    assert_eq!(settings.port(), 1883);
    assert_eq!(settings.client_id("porch"), "ocelli-porch");
    let names = settings.names("porch").unwrap();
    assert_eq!(
        (names.base(), names.discovery()),
        ("ocelli/porch", Some("homeassistant"))
    );
}

#[test]
fn everything_can_be_said() {
    let settings = parse(
        r#"
        host = "10.0.0.2"
        port = 2883
        version = "3.1.1"
        user = "u"
        password = "p"
        client_id = "me"
        base_topic = "home/eye"
        keep_alive_s = 60
        discovery_prefix = ""
        connect_timeout_s = 3
        [tls]
        ca = "/ca.pem"
        cert = "/c.pem"
        key = "/k.pem"
        server_name = "broker.lan"
        [queue]
        events = 5
        bytes = 70000
        "#,
    )
    .unwrap();
    assert_eq!(settings.version, Version::V311);
    assert_eq!(
        settings.queue_limits(),
        Limits {
            events: 5,
            bytes: 70_000
        }
    );
    assert_eq!(settings.names("porch").unwrap().discovery(), None);
    assert_eq!(settings.port(), 2883);
}

#[test]
fn tls_has_its_own_port() {
    assert_eq!(parse("host = \"b\"\n[tls]").unwrap().port(), 8883);
}

#[test]
fn what_is_wrong_is_named_with_its_value() {
    let table = [
        ("", "host"),
        ("host = \"\"", "mqtt.host"),
        ("host = \"b\"\nprot = 1", "prot"),
        ("host = \"b\"\nport = 0", "mqtt.port = 0"),
        ("host = \"b\"\nport = 65536", "65536"),
        ("host = \"b\"\nversion = \"4\"", "3.1.1"),
        ("host = \"b\"\nkeep_alive_s = 2", "mqtt.keep_alive_s = 2"),
        (
            "host = \"b\"\nconnect_timeout_s = 0",
            "mqtt.connect_timeout_s = 0",
        ),
        ("host = \"b\"\nclient_id = \"\"", "mqtt.client_id"),
        ("host = \"b\"\nbase_topic = \"a/#\"", "base_topic = \"a/#\""),
        ("host = \"b\"\ndiscovery_prefix = \"+\"", "discovery_prefix"),
        ("host = \"b\"\npassword = \"p\"", "needs a user"),
        (
            "host = \"b\"\nuser = \"u\"\npassword = \"p\"\npassword_file = \"/f\"",
            "one of them",
        ),
        ("host = \"b\"\n[tls]\ncert = \"/c\"", "both or none"),
        ("host = \"b\"\n[tls]\nverify = false", "verify"),
        ("host = \"b\"\n[queue]\nevents = 0", "mqtt.queue.events = 0"),
        (
            "host = \"b\"\n[queue]\nbytes = 1000",
            "mqtt.queue.bytes = 1000",
        ),
    ];
    for (text, says) in table {
        let error = parse(text).unwrap_err();
        assert!(
            error.contains(says),
            "{text:?} gives {error:?}, which does not say {says:?}"
        );
    }
}

#[test]
fn a_password_does_not_show_itself() {
    let settings = parse("host = \"b\"\nuser = \"u\"\npassword = \"tea\"").unwrap();
    assert!(!format!("{settings:?}").contains("tea"));
    assert_eq!(settings.read_password().unwrap().unwrap().reveal(), "tea");
}

#[test]
fn a_password_file_is_read_without_its_line_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("password");
    let mut settings = Settings::to_host("b");
    settings.password_file = Some(path.clone());
    for (content, password) in [
        ("tea", "tea"),
        ("tea\n", "tea"),
        ("tea\r\n", "tea"),
        ("t \n\n", "t \n"),
    ] {
        std::fs::write(&path, content).unwrap();
        assert_eq!(
            settings.read_password().unwrap().unwrap().reveal(),
            password
        );
    }
    std::fs::write(&path, "x".repeat(MAX_SECRET_BYTES + 1)).unwrap();
    let error = settings.read_password().unwrap_err().to_string();
    assert!(error.contains("longer than 4096"), "{error}");
    std::fs::remove_file(&path).unwrap();
    let error = settings.read_password().unwrap_err().to_string();
    assert!(error.contains(path.to_str().unwrap()), "{error}");
}
