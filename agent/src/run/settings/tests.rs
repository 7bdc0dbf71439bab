use super::*;

const LEAST: &str = "format = 1\nrules = \"r.toml\"\n[device]\nname = \"porch\"\n";

fn parse(text: &str) -> Result<Settings, SettingsError> {
    Settings::parse(text, Path::new("/etc/ocelli/ocelli.toml"))
}

#[test]
fn little_is_enough_and_paths_begin_at_the_file() {
    let settings = parse(LEAST).unwrap();
    assert_eq!(settings.rules, Path::new("/etc/ocelli/r.toml"));
    assert_eq!(settings.title(), "porch");
    assert_eq!(settings.zone_names(), [WHOLE]);
    assert!(!settings.privacy.remote_images);
}

#[test]
fn what_takes_effect_at_start_only_is_named_when_it_changes() {
    let old = Sections::of(LEAST);
    assert_eq!(old.changed(&Sections::of(LEAST)), [""; 0]);
    let new = Sections::of(&format!(
        "{LEAST}[model]\nthreads = 2\n[mqtt]\nhost = \"h\"\n"
    ));
    assert_eq!(old.changed(&new), ["`model`", "`mqtt`"]);
    let camera = format!("{LEAST}[camera]\nsource = \"v4l2:\"\n");
    assert_eq!(old.changed(&Sections::of(&camera)), [""; 0]);
}

#[test]
fn mistakes_name_file_setting_value_and_rule() {
    let cases = [
        (
            "[camera]\nsource = \"v4l2:\"\nrate = 0\n",
            "camera.rate = 0",
        ),
        (
            "[camera]\nsource = \"v4l2:\"\nrotate = 45\n",
            "0, 90, 180 or 270",
        ),
        ("[model]\nhot_c = 800\n", "model.hot_c = 800"),
        ("[model]\nhot_c = nan\n", "30 to 120 °C"),
        ("[snapshots]\nquality = 0\n", "snapshots.quality = 0"),
        ("[journal]\nsync_ms = 70000\n", "0 to 60000"),
        ("[journal]\nsnyc_ms = 7\n", "unknown field `snyc_ms`"),
        ("[pins.pir]\nbias = \"up\"\n", "pull-up"),
    ];
    for (text, wanted) in cases {
        let error = parse(&format!("{LEAST}{text}")).unwrap_err().to_string();
        assert!(error.contains(wanted), "{text}: {error}");
        assert!(error.starts_with("/etc/ocelli/ocelli.toml"), "{error}");
    }
    let error = parse(&LEAST.replace("porch", "Front Porch")).unwrap_err();
    assert!(error.to_string().contains("device.name"), "{error}");
    let error = parse(&LEAST.replace("format = 1", "format = 2")).unwrap_err();
    assert!(error.to_string().contains("format 1"), "{error}");
}
