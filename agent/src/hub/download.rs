//! One file: fetched, resumed, checked, put into the cache.

use super::Watcher;
use super::address::Repository;
use super::cache::{CachedRepository, make_parent, replace, whole};
use super::client::{Answer, Client, Method, check, cut};
use super::digest::ContentId;
use super::error::HubError;
use super::listing::RemoteFile;
use super::pace::PROGRESS_BYTES;
use super::patience::{Failure, Patience};
use super::settings::HubSettings;
use nix::fcntl::OFlag;
use ocelli_runtime::file::open_regular;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// Bytes read at a time.
const CHUNK: usize = 1 << 16;
/// Most bytes of a file whose size nobody says.
const MAX_UNSIZED_BYTES: u64 = 64 << 20;
/// Longest validator that is kept, in bytes.
const MAX_VALIDATOR_BYTES: usize = 256;

/// A file that is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Where it is, as a file of its commit.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Whether it was here before.
    pub was_cached: bool,
}

/// Where files come from and go to.
#[derive(Debug)]
pub struct Download<'a> {
    /// The way to the hub.
    pub client: &'a Client,
    /// How patient to be.
    pub settings: &'a HubSettings,
    /// The repository.
    pub repository: &'a Repository,
    /// Its part of the cache.
    pub cached: &'a CachedRepository,
    /// The commit.
    pub commit: &'a str,
}

/// What is known about the file under way.
struct Target {
    path: String,
    url: String,
    id: ContentId,
    size: Option<u64>,
}

impl Target {
    fn limit(&self) -> u64 {
        self.size.unwrap_or(MAX_UNSIZED_BYTES)
    }
}

impl Download<'_> {
    /// Fetches a file unless its content is in the cache.
    ///
    /// # Errors
    ///
    /// See [`HubError`].
    pub fn run(&self, file: &RemoteFile, watcher: &mut dyn Watcher) -> Result<Fetched, HubError> {
        let mut patience = Patience::new(self.settings);
        let target = self.target(file, &mut patience, watcher)?;
        let _lock = self.cached.lock(&target.id.to_string(), watcher)?;
        let blob = self.cached.blob(target.id);
        let here = whole(&blob, target.size);
        if here.is_none() {
            self.bring(&target, &mut patience, watcher)?;
        }
        let path = self.cached.link(self.commit, &target.path, target.id)?;
        let bytes = fs::metadata(&blob).map_err(HubError::file(&blob))?.len();
        Ok(Fetched {
            path,
            bytes,
            was_cached: here.is_some(),
        })
    }

    /// Hash and size of a file, by the list or by the server.
    fn target(
        &self,
        file: &RemoteFile,
        patience: &mut Patience,
        watcher: &mut dyn Watcher,
    ) -> Result<Target, HubError> {
        let endpoint = self.client.endpoint();
        let url = endpoint.file(self.repository, self.commit, &file.path);
        let target = |id, size| Target {
            path: file.path.clone(),
            url: url.clone(),
            id,
            size,
        };
        if let Some(id) = file.id {
            return Ok(target(id, file.size));
        }
        loop {
            match self.head(&url) {
                Ok((Some(id), size)) => return Ok(target(id, size.or(file.size))),
                Ok((None, _)) => return Err(HubError::NoHash { url }),
                Err(failure) => patience.pause(failure, watcher)?,
            }
        }
    }

    fn head(&self, url: &str) -> Result<(Option<ContentId>, Option<u64>), Failure> {
        let mut answer = self.client.ask(Method::Head, url, &[])?;
        check(&mut answer)?;
        let etag = answer.header("etag").and_then(ContentId::of_etag);
        let length = answer.header("content-length");
        let length = length.and_then(|length| length.parse().ok());
        Ok((answer.linked.id.or(etag), answer.linked.size.or(length)))
    }

    /// Transfers a content into its blob.
    fn bring(
        &self,
        target: &Target,
        patience: &mut Patience,
        watcher: &mut dyn Watcher,
    ) -> Result<(), HubError> {
        let mut partial = Partial::open(self.cached.incomplete(target.id))?;
        // What an earlier process left may be of anything; one new start is free.
        let mut is_inherited = partial.len > 0;
        // Bytes that came again after a new start are no progress.
        let mut furthest = partial.len;
        loop {
            if (target.size != Some(partial.len) || partial.len == 0)
                && let Err(failure) = self.transfer(target, &mut partial, watcher)
            {
                if partial.len >= furthest.saturating_add(PROGRESS_BYTES) {
                    furthest = partial.len;
                    patience.renew();
                }
                // Nor are a few more bytes at each try that was too slow.
                if failure.is_slow() {
                    furthest = furthest.max(partial.len);
                }
                patience.pause(failure, watcher)?;
                continue;
            }
            partial
                .file
                .sync_all()
                .map_err(HubError::file(&partial.path))?;
            let found = target.id.of_file(&partial.path);
            let found = found.map_err(HubError::file(&partial.path))?;
            if found == target.id {
                return partial.finish(self.cached.blob(target.id));
            }
            partial.restart()?;
            furthest = 0;
            if !std::mem::take(&mut is_inherited) {
                partial.remove();
                return Err(HubError::Hash {
                    url: target.url.clone(),
                    wanted: target.id.to_string(),
                    found: found.to_string(),
                });
            }
        }
    }

    /// One request for what is missing.
    fn transfer(
        &self,
        target: &Target,
        partial: &mut Partial,
        watcher: &mut dyn Watcher,
    ) -> Result<(), Failure> {
        if partial.len > target.limit() {
            partial.restart()?;
        }
        let mut headers = Vec::new();
        if partial.len > 0 {
            headers.push(("Range", format!("bytes={}-", partial.len)));
            if let Some(validator) = partial.validator() {
                headers.push(("If-Range", validator));
            }
        }
        let mut answer = self.client.ask(Method::Get, &target.url, &headers)?;
        let status = answer.response.status().as_u16();
        if status == 416 && partial.len > 0 {
            partial.restart()?;
            return Err(Failure::broken(
                &target.url,
                "the server cannot go on where it stopped; beginning anew",
            ));
        }
        check(&mut answer)?;
        self.accept(target, partial, &answer)?;
        receive(target, partial, answer, watcher)
    }

    /// Checks what an answer's head says, and makes the partial file fit it.
    fn accept(
        &self,
        target: &Target,
        partial: &mut Partial,
        answer: &Answer,
    ) -> Result<(), Failure> {
        let url = || target.url.clone();
        if answer.is_web_page() && !target.path.ends_with(".html") {
            return Err(HubError::WebPage { url: url() }.into());
        }
        if let Some(id) = answer.linked.id.filter(|id| *id != target.id) {
            return Err(HubError::Hash {
                url: url(),
                wanted: target.id.to_string(),
                found: id.to_string(),
            }
            .into());
        }
        let etag = answer.header("etag").map(str::to_owned);
        let is_part = answer.response.status().as_u16() == 206;
        let total = if is_part {
            let range = answer.header("content-range").unwrap_or_default();
            let (start, total) = content_range(range).ok_or_else(|| {
                Failure::broken(
                    &target.url,
                    format!("Content-Range: {range:?} makes no sense"),
                )
            })?;
            let known = partial.validator();
            let changed = known.is_some() && etag != known;
            if start != partial.len || changed {
                partial.restart()?;
                let what = match changed {
                    true => "the file changed on the server; beginning anew",
                    false => "the server sends another part than was asked for; beginning anew",
                };
                return Err(Failure::broken(&target.url, what));
            }
            total
        } else {
            partial.restart()?;
            let length = answer.header("content-length");
            length.and_then(|length| length.parse().ok())
        };
        if let (Some(wanted), Some(found)) = (target.size, total)
            && wanted != found
        {
            return Err(HubError::Length {
                url: url(),
                wanted,
                found,
            }
            .into());
        }
        if partial.len == 0 {
            partial.note(etag.as_deref())?;
        }
        Ok(())
    }
}

/// Writes the body behind what is here.
fn receive(
    target: &Target,
    partial: &mut Partial,
    mut answer: Answer,
    watcher: &mut dyn Watcher,
) -> Result<(), Failure> {
    let mut body = answer.body();
    let mut part = vec![0; CHUNK];
    watcher.bytes(&target.path, partial.len, target.size);
    loop {
        let n = match body.read(&mut part) {
            Ok(0) => break,
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(cut(&target.url, error)),
        };
        if partial.len + n as u64 > target.limit() {
            partial.remove();
            return Err(HubError::Endless {
                url: target.url.clone(),
                limit: target.limit(),
            }
            .into());
        }
        partial.append(&part[..n])?;
        watcher.bytes(&target.path, partial.len, target.size);
    }
    match target.size {
        Some(size) if partial.len < size => Err(Failure::broken(
            &target.url,
            format!("the connection ended after {} of {size} bytes", partial.len),
        )),
        _ => Ok(()),
    }
}

/// First byte and total of `bytes FIRST-LAST/TOTAL`.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes")?.trim().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    let total = match total.trim() {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    let fits = first <= last && total.is_none_or(|total| last < total);
    fits.then_some((first, total))
}

/// A transfer under way: the file, and what its server calls that content.
struct Partial {
    path: PathBuf,
    file: File,
    len: u64,
}

impl Partial {
    fn open(path: PathBuf) -> Result<Partial, HubError> {
        let open = || {
            make_parent(&path)?;
            let mut file = File::options()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                // A cache that was carried here may hold a link to any file.
                .custom_flags(OFlag::O_NOFOLLOW.bits())
                .open(&path)?;
            let len = file.seek(SeekFrom::End(0))?;
            Ok((file, len))
        };
        let (file, len) = open().map_err(HubError::file(&path))?;
        Ok(Partial { path, file, len })
    }

    fn validator_path(&self) -> PathBuf {
        self.path.with_added_extension("etag")
    }

    /// The strong validator of what is here.
    fn validator(&self) -> Option<String> {
        let mut text = String::new();
        let file = open_regular(&self.validator_path()).ok()?;
        let limit = MAX_VALIDATOR_BYTES as u64 + 1;
        file.take(limit).read_to_string(&mut text).ok()?;
        is_strong(&text).then_some(text)
    }

    /// Keeps a validator for the next range, if it is a strong one.
    fn note(&self, etag: Option<&str>) -> Result<(), HubError> {
        let path = self.validator_path();
        match etag.filter(|etag| is_strong(etag)) {
            Some(etag) => {
                replace(&path, |file| file.write_all(etag.as_bytes())).map_err(HubError::file(path))
            }
            None => {
                let _ = fs::remove_file(path);
                Ok(())
            }
        }
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), HubError> {
        self.file
            .write_all(bytes)
            .map_err(HubError::file(&self.path))?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn restart(&mut self) -> Result<(), HubError> {
        let _ = fs::remove_file(self.validator_path());
        self.len = 0;
        self.file
            .set_len(0)
            .and_then(|()| self.file.rewind())
            .map_err(HubError::file(&self.path))
    }

    fn remove(&self) {
        let _ = fs::remove_file(self.validator_path());
        let _ = fs::remove_file(&self.path);
    }

    /// Gives a checked content its place.
    fn finish(self, blob: PathBuf) -> Result<(), HubError> {
        let _ = fs::remove_file(self.validator_path());
        let parent = blob.parent().map(File::open);
        fs::rename(&self.path, &blob)
            .and_then(|()| parent.map_or(Ok(()), |dir| dir?.sync_all()))
            .map_err(HubError::file(blob))
    }
}

/// Whether a validator may stand in `If-Range`: strong, and plain enough for a header.
fn is_strong(etag: &str) -> bool {
    (2..=MAX_VALIDATOR_BYTES).contains(&etag.len())
        && etag.starts_with('"')
        && etag.ends_with('"')
        && etag.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_range_says_where_it_begins_and_how_long_the_file_is() {
        for (text, want) in [
            ("bytes 0-9/10", Some((0, Some(10)))),
            ("bytes 5-9/10", Some((5, Some(10)))),
            ("bytes 5-9/*", Some((5, None))),
            ("bytes=5-9/10", None),
            ("bytes 5-10/10", None),
            ("bytes 9-5/10", None),
            ("bytes */10", None),
            ("bytes -1-9/10", None),
            ("", None),
            ("bytes 99999999999999999999-1/2", None),
        ] {
            assert_eq!(content_range(text), want, "{text:?}");
        }
    }

    #[test]
    fn only_strong_validators_resume() {
        for (text, strong) in [
            ("\"abc\"", true),
            ("W/\"abc\"", false),
            ("abc", false),
            ("\"a b\"", false),
            ("\"a\r\nX: y\"", false),
            ("\"", false),
            ("", false),
        ] {
            assert_eq!(is_strong(text), strong, "{text:?}");
        }
    }
}
