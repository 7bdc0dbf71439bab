//! Vectors made by minisign 0.11: `minisign -G -W`, `minisign -S -t "sample, version 1"`, and `-S -l`
//! for the old form without a hash.

use super::*;

const SAMPLE: &str = "a pack in name only\n";
const KEY: &str = "RWTfH9I3AurszutokVOxvZXNHFkSTDFRpQuJ1sLY0/OxRtFPR0Ybgf0d";
const KEY_ID: &str = "CEECEA0237D21FDF";
const OTHER_KEY: &str = "RWRJwuRtOKnykdLPsixsV29YXrOgSoc/pXGmbtW3Fa//V1NaO0Acwbgh";
const OTHER_ID: &str = "91F2A9386DE4C249";
const SIGNATURE: &str = "untrusted comment: signature from minisign secret key\nRUTfH9I3AurszmtIOz3RVHmlvODf2ZcpObd+xfdVv5uCKLTN9QuGUiJ6zMNaETn9TBgXOKhJ6AXl+aWTM6rBTW0BLQ53L4xckAU=\ntrusted comment: sample, version 1\n6yKBBqC8TX4N4SUquABIWpAVg56ABMndExag5OFoIEoEXd+vIe7T+Gs0E1DvUUGI/aciNRBbpKSMk9M6vxMzCw==\n";
const OLD_SIGNATURE: &str = "untrusted comment: signature from minisign secret key\nRWTfH9I3AurszupnpsAWKuuw8fbuAvtYsWyWigB4T9YmphoDo3rG6ms1v6twcO3r80rNI+aas7oCod8O+5BLLFC5DoOofnv1sQg=\ntrusted comment: sample, version 1\nxnnJi2H4i8FANgpLV6nlLR10SMc7MoicZlKQO6RyySBwdktkg8tBpIuMkIVSUkKNSNIHtKec+RO6VqMrhmptCg==\n";

fn keys(keys: &[&str]) -> Keys {
    let keys: Vec<_> = keys.iter().map(|key| (*key).to_owned()).collect();
    Keys::configured(&keys, |_| None).unwrap()
}

fn check(keys: &Keys, content: &str, signature: Option<&str>) -> Result<Signed, SignatureError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sample.ocelli");
    fs::write(&path, content).unwrap();
    keys.check(&path, signature)
}

#[test]
fn a_good_signature_by_one_of_the_keys_is_accepted() {
    for configured in [&[KEY][..], &[OTHER_KEY, KEY]] {
        let signed = check(&keys(configured), SAMPLE, Some(SIGNATURE)).unwrap();
        assert_eq!(
            (signed.key.as_str(), signed.comment.as_str()),
            (KEY_ID, "sample, version 1")
        );
    }
}

#[test]
fn whatever_else_comes_is_refused_and_the_wanted_key_named() {
    let error = check(&keys(&[KEY]), SAMPLE, None).unwrap_err();
    assert!(error.to_string().contains(KEY_ID), "{error}");
    let error = check(&keys(&[OTHER_KEY]), SAMPLE, Some(SIGNATURE)).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(KEY_ID) && text.contains(OTHER_ID), "{text}");
    let changed = SIGNATURE.replace("version 1", "version 2");
    for (content, signature) in [
        ("another pack\n", SIGNATURE),
        ("", SIGNATURE),
        (SAMPLE, &changed),
    ] {
        let error = check(&keys(&[KEY]), content, Some(signature)).unwrap_err();
        assert!(matches!(error, SignatureError::Wrong { .. }), "{error}");
    }
    for signature in [
        "",
        "x",
        "untrusted comment: x\nRWQ=\ntrusted comment: y\nAA==\n",
        OLD_SIGNATURE,
    ] {
        let error = check(&keys(&[KEY]), SAMPLE, Some(signature)).unwrap_err();
        assert!(matches!(error, SignatureError::Malformed { .. }), "{error}");
    }
}

#[test]
fn a_variable_without_a_key_does_not_switch_the_keys_of_the_files_off() {
    for text in [",", " ", "\n", " , "] {
        let variable = |name: &str| (name == "OCELLI_MODEL_KEYS").then(|| text.into());
        let error = Keys::configured(&[], variable).unwrap_err().to_string();
        assert!(error.contains("OCELLI_MODEL_KEYS"), "{error}");
        assert!(error.contains("names no key"), "{error}");
    }
}

#[test]
fn keys_come_from_the_flag_or_the_variable_or_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("ocelli");
    fs::create_dir(&folder).unwrap();
    fs::write(
        folder.join("release.pub"),
        format!("untrusted comment: x\n{KEY}\n"),
    )
    .unwrap();
    fs::write(folder.join("models.toml"), "keys = [\"release.pub\"]\n").unwrap();
    let home = dir.path().as_os_str().to_owned();
    let file = |name: &str| (name == "XDG_CONFIG_HOME").then(|| home.clone());
    let both = |name: &str| match name {
        "OCELLI_MODEL_KEYS" => Some(OTHER_KEY.into()),
        name => file(name),
    };
    let wanted = |id: &str| format!("key {id}");
    assert_eq!(Keys::configured(&[], file).unwrap().ids(), wanted(KEY_ID));
    assert_eq!(Keys::configured(&[], both).unwrap().ids(), wanted(OTHER_ID));
    let flag = [KEY.to_owned()];
    assert_eq!(Keys::configured(&flag, both).unwrap().ids(), wanted(KEY_ID));
    // A key that cannot be read must not mean that no key is wanted.
    fs::remove_file(folder.join("release.pub")).unwrap();
    assert!(Keys::configured(&[], file).is_err());
    fs::write(folder.join("models.toml"), "key = []\n").unwrap();
    assert!(Keys::configured(&[], file).is_err());
    for wrong in ["", "RWQ=", "nowhere.pub"] {
        assert!(
            Keys::configured(&[wrong.to_owned()], |_| None).is_err(),
            "{wrong:?}"
        );
    }
}
