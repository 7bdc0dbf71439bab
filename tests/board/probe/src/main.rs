//! Opens a source and prints a JSON line for each frame and each change of state.
//!
//!     probe URI [--frames N] [--save FILE.ppm] [--cycles N] [--seconds N] [--settle N] [--await] [--every MS] [--stuck-ms MS]
//!     probe --list
//!
//! `--cycles N` opens, reads and closes N times and prints open files, threads and memory before and after.

use std::error::Error;
use std::fs;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use ocelli_camera::camera::{Camera, CameraError, CameraOptions, CameraStatus};
use ocelli_camera::recovery::State;
use ocelli_camera::source::monotonic_now;
use ocelli_camera::{Frame, device};
use serde_json::{Value, json};

struct Arguments {
    uri: String,
    frames: u64,
    seconds: u64,
    cycles: u64,
    every: Duration,
    save: Option<String>,
    options: CameraOptions,
}

fn arguments() -> Result<Arguments, Box<dyn Error>> {
    let mut found = Arguments {
        uri: String::new(),
        frames: 10,
        seconds: u64::MAX,
        cycles: 0,
        every: Duration::ZERO,
        save: None,
        options: CameraOptions::default(),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "--frames" => found.frames = value()?.parse()?,
            "--seconds" => found.seconds = value()?.parse()?,
            "--cycles" => found.cycles = value()?.parse()?,
            "--every" => found.every = Duration::from_millis(value()?.parse()?),
            "--save" => found.save = Some(value()?),
            "--settle" => found.options.settle.frames = value()?.parse()?,
            "--stuck-ms" => {
                found.options.policy.stuck_after = Duration::from_millis(value()?.parse()?);
            }
            "--await" => found.options.await_device = true,
            _ if word.starts_with("--") => return Err(format!("no such option: {word}").into()),
            _ => found.uri = word,
        }
    }
    match found.uri.is_empty() {
        true => Err("usage: probe URI [options], or probe --list".into()),
        false => Ok(found),
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("probe: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    if std::env::args().any(|word| word == "--list") {
        for device in device::list() {
            let (path, advice) = (&device.facts.path, &device.advice);
            let usable = advice.usable;
            print(
                &json!({"device": path, "usable": usable, "what": advice.what, "advice": advice.advice}),
            );
        }
        return Ok(());
    }
    let arguments = arguments()?;
    if arguments.cycles > 0 {
        return cycles(&arguments);
    }
    let mut camera = Camera::open(&arguments.uri, arguments.options.clone())?;
    let status = camera.status();
    print(&json!({"opened": status.description(), "state": state(&status.state())}));
    watch(&mut camera, &status, &arguments)
}

fn watch(
    camera: &mut Camera,
    status: &CameraStatus,
    arguments: &Arguments,
) -> Result<(), Box<dyn Error>> {
    let begun = monotonic_now();
    let mut shown = status.state();
    let mut frames = 0;
    while frames < arguments.frames && (monotonic_now() - begun).as_secs() < arguments.seconds {
        let frame = camera.frame(Duration::from_millis(200));
        let now = status.state();
        if kind(&now) != kind(&shown) {
            print(&json!({"state": state(&now), "counters": counters(status)}));
            shown = now;
        }
        match frame {
            Ok(frame) => {
                frames += 1;
                show(&frame, status)?;
                if let Some(path) = &arguments.save {
                    save(&frame, path)?;
                }
                std::thread::sleep(arguments.every);
            }
            Err(CameraError::NoFrame { .. }) => {}
            Err(error) => {
                print(&json!({"end": error.to_string(), "counters": counters(status)}));
                break;
            }
        }
    }
    print(
        &json!({"frames": frames, "state": state(&status.state()), "counters": counters(status)}),
    );
    Ok(())
}

fn show(frame: &Frame, status: &CameraStatus) -> Result<(), Box<dyn Error>> {
    let format = frame.format();
    let age = monotonic_now().saturating_sub(frame.timestamp());
    let rgb = frame.to_rgb().map(|rgb| crc32fast::hash(&rgb.pixels));
    print(&json!({
        "sequence": frame.sequence(),
        "age_ms": age.as_micros() as f64 / 1000.0,
        "timestamp_s": frame.timestamp().as_secs_f64(),
        "format": format.pixel.to_string(),
        "width": format.width,
        "height": format.height,
        "stride": format.stride,
        "matrix": format!("{:?}", format.color.matrix),
        "range": format!("{:?}", format.color.range),
        "rgb_crc": rgb.as_ref().ok(),
        "error": rgb.as_ref().err().map(ToString::to_string),
        "counters": counters(status),
    }));
    Ok(())
}

fn save(frame: &Frame, path: &str) -> Result<(), Box<dyn Error>> {
    let rgb = frame.to_rgb()?;
    let mut file = fs::File::create(path)?;
    write!(file, "P6\n{} {}\n255\n", rgb.width, rgb.height)?;
    Ok(file.write_all(&rgb.pixels)?)
}

fn cycles(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    // The first cycles fill caches that stay.
    for _ in 0..3 {
        cycle(arguments)?;
    }
    print(&json!({"before": usage()?}));
    let mut failed = 0;
    for _ in 0..arguments.cycles {
        if let Err(error) = cycle(arguments) {
            failed += 1;
            print(&json!({"failed": error.to_string()}));
        }
    }
    print(&json!({"after": usage()?, "cycles": arguments.cycles, "failed": failed}));
    Ok(())
}

fn cycle(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let mut camera = Camera::open(&arguments.uri, arguments.options.clone())?;
    for _ in 0..arguments.frames {
        camera.frame(Duration::from_secs(5))?;
    }
    Ok(())
}

/// Open files, threads and resident kilobytes of this process.
fn usage() -> Result<Value, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let number = |key: &str| -> Option<u64> {
        let line = status.lines().find(|line| line.starts_with(key))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    let files = fs::read_dir("/proc/self/fd")?.count() as u64 - 1;
    Ok(json!({"files": files, "threads": number("Threads:"), "rss_kb": number("VmRSS:")}))
}

fn kind(state: &State) -> &'static str {
    match state {
        State::Streaming => "streaming",
        State::Recovering { .. } => "recovering",
        State::Gone { .. } => "gone",
    }
}

fn state(state: &State) -> Value {
    match state {
        State::Streaming => json!({"kind": "streaming"}),
        State::Recovering {
            reason,
            since,
            tries,
        } => {
            let since = since.as_secs_f64();
            json!({"kind": "recovering", "reason": reason, "since_s": since, "tries": tries})
        }
        State::Gone { reason, since } => {
            json!({"kind": "gone", "reason": reason, "since_s": since.as_secs_f64()})
        }
    }
}

fn counters(status: &CameraStatus) -> Value {
    let counters = status.counters();
    let drops = counters.drops;
    json!({
        "frames": counters.frames,
        "damaged": drops.damaged,
        "stale": drops.stale,
        "missed": drops.missed,
        "unsettled": drops.unsettled,
        "restarts": counters.restarts,
        "reopens": counters.reopens,
        "faults": counters.faults,
    })
}

/// One line. A reader that has gone away is no fault of the camera.
fn print(line: &Value) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
}
