//! Where files lie that may be deleted at any time: what held or was measured at an earlier start.

use std::ffi::OsString;
use std::path::PathBuf;

/// The folder for files of one kind, by an environment: in `$CACHE_DIRECTORY`, or in `ocelli` of the
/// user's cache folder; `None` where there is neither.
pub fn cache_folder(
    kind: &str,
    variable: impl Fn(&'static str) -> Option<OsString>,
) -> Option<PathBuf> {
    let path = |name| {
        let value = variable(name).filter(|value| !value.is_empty());
        value.map(PathBuf::from)
    };
    // A service's cache folder comes first: it may have no home.
    let own = path("CACHE_DIRECTORY").or_else(|| {
        let cache = path("XDG_CACHE_HOME").or_else(|| Some(path("HOME")?.join(".cache")));
        Some(cache?.join("ocelli"))
    });
    Some(own?.join(kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_service_has_its_own_folder_and_others_the_users() {
        for (variables, folder) in [
            (&[("HOME", "/h")][..], Some("/h/.cache/ocelli/threads")),
            (
                &[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")],
                Some("/x/ocelli/threads"),
            ),
            (
                &[("HOME", "/h"), ("XDG_CACHE_HOME", "")],
                Some("/h/.cache/ocelli/threads"),
            ),
            (
                &[
                    ("XDG_CACHE_HOME", "/x"),
                    ("CACHE_DIRECTORY", "/var/cache/o"),
                ],
                Some("/var/cache/o/threads"),
            ),
            (&[("HOME", "")], None),
            (&[], None),
        ] {
            let of = |name: &str| {
                let found = variables.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| OsString::from(value))
            };
            assert_eq!(
                cache_folder("threads", of).as_deref(),
                folder.map(Path::new),
                "{variables:?}"
            );
        }
    }
}
