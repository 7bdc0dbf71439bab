use super::*;
use crate::frame::{Color, FrameFormat, Matrix, Range};
use crate::pixel_format::PixelFormat;
use std::collections::VecDeque;

/// What a scripted source does when it is asked for a frame.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// A frame of this brightness.
    Frame(u8),
    Fault(Fault),
}
use Act::{Fault as Fail, Frame as Give};

const FORMAT: FrameFormat = FrameFormat {
    pixel: PixelFormat::Grey,
    width: 2,
    height: 2,
    stride: 0,
    color: Color {
        matrix: Matrix::Bt601,
        range: Range::Full,
    },
};

fn error(fault: Fault) -> SourceError {
    let (address, what) = ("script".to_owned(), "as scripted".to_owned());
    match fault {
        Fault::Request => SourceError::Uri { uri: address, what },
        Fault::Late => SourceError::Late {
            address,
            wait: Duration::ZERO,
        },
        Fault::Hiccup => SourceError::Hiccup { address, what },
        Fault::Stream => SourceError::Broken { address, what },
        Fault::Device => SourceError::Lost { address, what },
        Fault::End => SourceError::Ended { address },
    }
}

/// A source that follows a script and says that it ended when the script is over.
struct Script {
    acts: VecDeque<Act>,
    live: bool,
}

impl Source for Script {
    fn next_frame(&mut self, _: Duration) -> Result<Frame, SourceError> {
        match self.acts.pop_front() {
            Some(Give(luma)) => Ok(Frame::new(FORMAT, vec![luma; 4], 0, Duration::ZERO).unwrap()),
            Some(Fail(fault)) => Err(error(fault)),
            None => Err(error(Fault::End)),
        }
    }

    fn format(&self) -> FrameFormat {
        FORMAT
    }

    fn describe(&self) -> String {
        "a script".into()
    }

    fn address(&self) -> String {
        "replay:renumbered".into()
    }

    fn is_live(&self) -> bool {
        self.live
    }

    fn drops(&self) -> Drops {
        Drops {
            missed: 1,
            ..Drops::default()
        }
    }

    fn restart(&mut self) -> Result<(), SourceError> {
        Ok(())
    }
}

/// Each time the camera opens its source, the next script runs; an empty one is a device that is away.
fn open(scripts: &[&[Act]], await_device: bool) -> Result<Camera, SourceError> {
    let mut scripts: VecDeque<Vec<Act>> = scripts.iter().map(|acts| acts.to_vec()).collect();
    let mut expected = "replay:first";
    let open: Open = Box::new(move |address, _| {
        assert_eq!(address, expected);
        match scripts.pop_front() {
            Some(acts) if !acts.is_empty() => {
                expected = "replay:renumbered";
                Ok(Box::new(Script {
                    acts: acts.into(),
                    live: true,
                }))
            }
            _ => Err(error(Fault::Device)),
        }
    });
    let options = CameraOptions {
        policy: Policy {
            hiccups: 1,
            first_wait: Duration::ZERO,
            ..Policy::default()
        },
        settle: Settle {
            frames: 0,
            tolerance: 0,
        },
        await_device,
        ..CameraOptions::default()
    };
    Camera::open_with("replay:first", options, open)
}

const LONG: Duration = Duration::from_secs(60);

fn brightness(frame: &Frame) -> u8 {
    frame.luma(1, 1).unwrap().values[0]
}

/// All frames until the end.
fn frames(camera: &mut Camera) -> Vec<u8> {
    std::iter::from_fn(|| camera.frame(LONG).ok())
        .map(|frame| brightness(&frame))
        .collect()
}

#[test]
fn frames_go_on_after_every_kind_of_fault() {
    type Case<'a> = (&'a str, &'a [&'a [Act]], [u64; 3]);
    let cases: [Case<'_>; 6] = [
        ("none", &[&[Give(1), Give(2)]], [0, 0, 1]),
        (
            "a hiccup",
            &[&[Give(1), Fail(Fault::Hiccup), Give(2)]],
            [0, 0, 2],
        ),
        (
            "a late frame",
            &[&[Give(1), Fail(Fault::Late), Give(2)]],
            [0, 0, 1],
        ),
        (
            "a broken stream",
            &[&[Give(1), Fail(Fault::Stream), Give(2)]],
            [1, 0, 2],
        ),
        (
            "broken for good",
            &[
                &[Give(1), Fail(Fault::Stream), Fail(Fault::Stream)],
                &[Give(2)],
            ],
            [1, 1, 3],
        ),
        (
            "unplugged, away twice",
            &[&[Give(1), Fail(Fault::Device)], &[], &[], &[Give(2)]],
            [0, 3, 4],
        ),
    ];
    for (name, scripts, expected) in cases {
        let mut camera = open(scripts, false).unwrap();
        assert_eq!(frames(&mut camera), [1, 2], "{name}");
        let found = camera.status().counters();
        assert_eq!(
            [found.restarts, found.reopens, found.faults],
            expected,
            "{name}"
        );
        assert_eq!(found.frames, 2, "{name}");
    }
}

#[test]
fn a_stream_that_fails_to_start_once_is_started_again() {
    let mut attempts = 0;
    let open: Open = Box::new(move |_, _| {
        attempts += 1;
        match attempts {
            1 => Err(error(Fault::Stream)),
            _ => Ok(Box::new(Script {
                acts: [Give(7)].into(),
                live: false,
            })),
        }
    });
    let mut camera = Camera::open_with("replay:x", CameraOptions::default(), open).unwrap();
    assert_eq!(frames(&mut camera), [7]);
}

#[test]
fn a_device_that_is_away_is_an_error_unless_it_is_to_be_awaited() {
    assert!(matches!(open(&[&[]], false), Err(SourceError::Lost { .. })));
    let mut camera = open(&[&[], &[], &[Give(3)]], true).unwrap();
    assert!(matches!(camera.status().state(), State::Recovering { .. }));
    assert_eq!(brightness(&camera.frame(LONG).unwrap()), 3);
    assert_eq!(camera.status().state(), State::Streaming);
}

#[test]
fn the_state_can_be_read_from_another_thread_and_says_why() {
    let mut camera = open(&[&[Give(5), Fail(Fault::Device)]], false).unwrap();
    let status = camera.status();
    camera.frame(LONG).unwrap();
    let missing = camera.frame(Duration::ZERO).unwrap_err();
    assert!(
        missing
            .to_string()
            .contains("script went away: as scripted"),
        "{missing}"
    );
    let (state, last) = std::thread::spawn(move || (status.state(), status.last_frame()))
        .join()
        .unwrap();
    assert!(matches!(state, State::Recovering { reason, .. } if reason.contains("as scripted")));
    assert_eq!(brightness(&last.unwrap()), 5);
}

#[test]
fn the_end_of_a_recording_is_no_fault_to_recover_from() {
    let mut camera = open(&[&[Give(1)]], false).unwrap();
    camera.frame(LONG).unwrap();
    for _ in 0..2 {
        assert!(matches!(camera.frame(LONG), Err(CameraError::Ended { .. })));
    }
    assert!(matches!(camera.status().state(), State::Gone { .. }));
}

#[test]
fn drops_of_closed_sources_stay_counted() {
    let mut camera = open(&[&[Give(1), Fail(Fault::Device)], &[Give(2)]], false).unwrap();
    frames(&mut camera);
    assert_eq!(camera.status().counters().drops.missed, 2);
}

#[test]
fn a_live_source_settles_each_time_it_was_opened_and_a_recording_does_not() {
    let acts = [0, 90, 180, 180, 180, 180].map(Give);
    for (live, expected, unsettled) in [
        (true, vec![180, 180], 4),
        (false, vec![0, 90, 180, 180, 180, 180], 0),
    ] {
        let open: Open = Box::new(move |_, _| {
            Ok(Box::new(Script {
                acts: acts.into(),
                live,
            }))
        });
        let mut camera = Camera::open_with("replay:x", CameraOptions::default(), open).unwrap();
        assert_eq!(frames(&mut camera), expected);
        assert_eq!(camera.status().counters().drops.unsettled, unsettled);
    }
}
