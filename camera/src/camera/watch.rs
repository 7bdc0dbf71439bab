//! Noticing that a device has turned up.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// Watches `/dev`. Where that is not possible, waits simply last their time.
pub(super) struct DeviceWatch(Option<Inotify>);

impl DeviceWatch {
    pub(super) fn new() -> DeviceWatch {
        DeviceWatch(watch_devices().ok())
    }

    /// Waits for at most `wait`; whether something turned up or became accessible.
    pub(super) fn wait(&self, wait: Duration) -> bool {
        let wait = wait.saturating_add(Duration::from_micros(999));
        let timeout = PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX);
        let Some(inotify) = &self.0 else {
            std::thread::sleep(wait);
            return false;
        };
        let mut polled = [PollFd::new(inotify.as_fd(), PollFlags::POLLIN)];
        let ready = poll(&mut polled, timeout).unwrap_or(0) > 0;
        // What happened while nobody waited wakes the next wait: devices may have come then.
        ready
            && inotify
                .read_events()
                .is_ok_and(|events| events.iter().any(is_video))
    }
}

fn is_video(event: &nix::sys::inotify::InotifyEvent) -> bool {
    let name = event.name.as_ref().map(|name| name.to_string_lossy());
    name.is_some_and(|name| name.starts_with("video") || name.starts_with("v4l"))
}

fn watch_devices() -> nix::Result<Inotify> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    // Nodes appear first, and get their group and permissions a moment later.
    inotify.add_watch("/dev", AddWatchFlags::IN_CREATE | AddWatchFlags::IN_ATTRIB)?;
    Ok(inotify)
}
