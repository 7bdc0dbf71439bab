//! What to do about a file that cannot be written.

use std::io;

/// What a message about `error` ends with; `how` another folder is named. Empty where nothing is known.
pub(crate) fn remedy(error: &io::Error, how: &str) -> String {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            format!("; make room there, or name another folder {how}")
        }
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            format!("; let this user write there, or name another folder {how}")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use crate::fault::Fault;
    use crate::hub::HubError;
    use nix::errno::Errno;

    #[test]
    fn who_cannot_write_is_told_what_to_do() {
        for (errno, wanted) in [
            (Errno::ENOSPC, "make room there, or name another folder"),
            (Errno::EDQUOT, "make room there, or name another folder"),
            (Errno::EROFS, "let this user write there"),
            (Errno::EACCES, "let this user write there"),
        ] {
            let hub = HubError::file("/cache/x")(errno.into()).to_string();
            assert!(hub.starts_with("/cache/x: "), "{hub}");
            assert!(hub.contains(wanted) && hub.contains("HF_HOME"), "{hub}");
            let (path, source) = ("/models/x".into(), errno.into());
            let file = Fault::File { path, source }.to_string();
            assert!(file.contains(wanted), "{file}");
        }
        let other = HubError::file("x")(Errno::EIO.into()).to_string();
        assert!(other.ends_with("(os error 5)"), "{other}");
    }
}
