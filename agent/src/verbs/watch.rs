//! `ocelli watch`: says what a camera sees, as it happens.

use crate::answer::Asker;
use crate::cli::{Global, WatchArgs};
use crate::fault::Fault;
use crate::model;
use crate::progress::Progress;
use crate::remark::remark;
use crate::watch::{Album, EyeSettings, Eyes, News, START, Sight, Told, Watch};
use ocelli_camera::camera::{Camera, CameraOptions};
use ocelli_camera::change::ChangeSettings;
use ocelli_camera::look::{LookSettings, On, SecondLook, Trigger, TriggerTimes};
use ocelli_camera::quality::QualityLimits;
use ocelli_camera::recovery::State;
use ocelli_camera::source::SourceOptions;
use ocelli_camera::zone::ZoneName;
use ocelli_camera::{Mask, Orientation, View, device};
use serde_json::{Value, json};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// How often the wish to stop is looked at while nothing happens.
const GLANCE: Duration = Duration::from_millis(200);

/// Runs the verb until the source ends, a limit is reached or the user stops it.
///
/// # Errors
///
/// See [`Fault`].
pub fn run(global: &Global, args: &WatchArgs) -> Result<(), Fault> {
    args.answer.generate_options().sampling.validate()?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // The second signal ends the program at once, should the model be slow to come to a stop.
        signal_hook::flag::register_conditional_shutdown(signal, 1, stop.clone())?;
        signal_hook::flag::register(signal, stop.clone())?;
    }
    let album = args.save.as_ref().map(|dir| {
        Album::open(dir, args.save_as).map_err(|source| Fault::File {
            path: dir.clone(),
            source,
        })
    });
    let album = album.transpose()?;
    let source = source(args)?;
    let camera = Camera::open(&source, camera_options(args))?;
    let live = !source.starts_with("replay:");
    let source = camera.status().description();
    let eyes = Eyes::new(camera, eye_settings(args, live)?, second_look(args)?)?;
    let mut progress = Progress::new(global);
    let (vlm, load) = model::load(global, &mut progress)?;
    let asker = Asker::new(global, &args.answer, &vlm, load)?;
    if global.verbose {
        remark!("ocelli: watching {source}");
    }
    let watch = Watch::start(eyes)?;
    let mut teller = Teller {
        asker,
        args,
        album,
        source,
        progress,
        answered: 0,
    };
    teller.tell(&watch, &stop)
}

/// Puts what the eyes tell into words.
struct Teller<'a> {
    asker: Asker<'a>,
    args: &'a WatchArgs,
    album: Option<Album>,
    source: String,
    progress: Progress,
    answered: usize,
}

impl Teller<'_> {
    fn tell(&mut self, watch: &Watch, stop: &AtomicBool) -> Result<(), Fault> {
        let start = Instant::now();
        let enough = |answered: usize| self.args.count.is_some_and(|most| answered >= most.get());
        let late = || {
            self.args
                .stop_after
                .is_some_and(|most| start.elapsed() >= most)
        };
        let mut recovering: Option<Instant> = None;
        while !stop.load(Ordering::Relaxed) && !enough(self.answered) && !late() {
            match watch.next(GLANCE) {
                Told::Sight(sight) => self.answer(&sight)?,
                Told::News(news) => self.news(&news, &mut recovering)?,
                Told::Nothing => {}
                Told::End => break,
            }
        }
        Ok(())
    }

    fn answer(&mut self, sight: &Sight) -> Result<(), Fault> {
        let global = self.asker.global;
        let time = humantime::format_rfc3339_millis(sight.taken).to_string();
        let stats =
            self.asker
                .prompt(&sight.picture, &time, &self.args.prompt, &mut self.progress)?;
        let mut out = io::stdout();
        if !global.json {
            write!(out, "{time} {}: ", sight.trigger)?;
            out.flush()?;
        }
        let answer = self.asker.say()?;
        self.answered += 1;
        let mut report = self.asker.answer_report(&self.source, &stats, &answer);
        report.insert("kind".into(), json!("caption"));
        report.insert("time".into(), json!(time));
        report.insert("event".into(), json!(sight.event));
        report.insert(
            "phase".into(),
            json!(if sight.is_new { "new" } else { "update" }),
        );
        report.insert("trigger".into(), json!(sight.trigger));
        report.insert("zones".into(), json!(sight.zones));
        report.insert("changed_permille".into(), json!(sight.changed_permille));
        report.insert("boxes".into(), boxes(sight));
        report.insert("quality".into(), json!(sight.findings));
        report.insert(
            "frame".into(),
            json!({
                "sequence": sight.sequence,
                "age_ms": sight.age.as_millis() as u64,
                "width": sight.picture.width(),
                "height": sight.picture.height(),
            }),
        );
        if let Some((label, score)) = &sight.second {
            report.insert("detector".into(), json!({"label": label, "score": score}));
        }
        if let Some(album) = &self.album {
            let path = album.path(sight.taken, sight.event);
            report.insert("saved".into(), json!(path.display().to_string()));
            let words = Value::Object(report.clone()).to_string();
            if let Err(error) = album.save(&path, &sight.picture, &words) {
                report.remove("saved");
                self.remark(&format!("{} was not saved: {error}", path.display()));
            }
        }
        if global.json {
            writeln!(out, "{}", Value::Object(report))?;
        } else {
            writeln!(out)?;
        }
        self.asker.remark(&stats, &answer);
        Ok(())
    }

    fn news(&mut self, news: &News, recovering: &mut Option<Instant>) -> Result<(), Fault> {
        match news {
            News::Camera(state) => self.camera(state, recovering),
            News::Refused { trigger, reason } => self.line(
                json!({"kind": "skipped", "trigger": trigger, "reason": reason}),
                &format!("{trigger}: no look: {reason}"),
                true,
            ),
            News::EventEnd { event } => self.line(
                json!({"kind": "end", "event": event}),
                &format!("event {event} is over"),
                false,
            ),
            News::Replaced { event } => self.line(
                json!({"kind": "skipped", "event": event, "reason": "a newer picture came first"}),
                &format!("a picture of event {event} was skipped: a newer one came first"),
                false,
            ),
            News::Lost { count } => self.line(
                json!({"kind": "lost", "count": count}),
                &format!("{count} remarks were lost, too many came at once"),
                true,
            ),
            News::BadFrame(error) => self.line(
                json!({"kind": "skipped", "reason": error.to_string()}),
                &format!("a frame was left out: {error}"),
                true,
            ),
            News::Detector(error) => {
                self.line(json!({"kind": "detector", "reason": error}), error, true)
            }
        }
    }

    fn camera(&self, state: &State, recovering: &mut Option<Instant>) -> Result<(), Fault> {
        let (name, text, fields) = match state {
            State::Streaming => {
                let away = recovering.take().map(|since| since.elapsed().as_secs_f64());
                let text = away.map_or("the camera is streaming".to_owned(), |away| {
                    format!("the camera is streaming again after {away:.1} s")
                });
                ("streaming", text, json!({"away_s": away}))
            }
            State::Recovering { reason, tries, .. } => {
                recovering.get_or_insert_with(Instant::now);
                let fields = json!({"reason": reason, "tries": tries});
                (
                    "recovering",
                    format!("the camera is recovering: {reason}"),
                    fields,
                )
            }
            State::Gone { reason, .. } => {
                recovering.get_or_insert_with(Instant::now);
                let text = format!("the camera is gone: {reason}; it is waited for");
                ("gone", text, json!({"reason": reason}))
            }
        };
        let first = name == "streaming" && fields["away_s"].is_null();
        let mut report = json!({"kind": "camera", "state": name, "time": now()});
        if let (Some(report), Value::Object(fields)) = (report.as_object_mut(), fields) {
            report.extend(fields);
        }
        self.line(report, &text, !first)
    }

    /// One line of news: JSON on stdout, or a remark on stderr (when `important` without `--verbose` too).
    fn line(&self, report: Value, text: &str, important: bool) -> Result<(), Fault> {
        let global = self.asker.global;
        if global.json {
            writeln!(io::stdout(), "{report}")?;
        } else if important || global.verbose {
            self.remark(text);
        }
        Ok(())
    }

    fn remark(&self, text: &str) {
        if !self.asker.global.quiet {
            remark!("ocelli: {} {text}", now());
        }
    }
}

fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

fn boxes(sight: &Sight) -> Value {
    let boxes = sight.boxes.iter();
    boxes
        .map(|b| json!({"x": b.x, "y": b.y, "width": b.width, "height": b.height}))
        .collect()
}

/// The source that was named, or the first camera.
fn source(args: &WatchArgs) -> Result<String, Fault> {
    if let Some(source) = &args.source {
        return Ok(source.clone());
    }
    let devices = device::list();
    if let Some(usable) = devices.iter().find(|device| device.advice.usable) {
        return Ok(format!("v4l2:{}", usable.facts.path.display()));
    }
    let seen = devices.iter().map(|device| {
        let path = device.facts.path.display();
        format!("{path}: {}; {}", device.advice.what, device.advice.advice)
    });
    let seen: Vec<String> = seen.collect();
    Err(Fault::NoCamera {
        seen: if seen.is_empty() {
            "there is no /dev/video*".to_owned()
        } else {
            seen.join("; ")
        },
    })
}

fn camera_options(args: &WatchArgs) -> CameraOptions {
    let quarter_turns = match args.rotate.as_str() {
        "90" => 1,
        "180" => 2,
        "270" => 3,
        _ => 0,
    };
    let mask = (!args.mask.is_empty()).then(|| Arc::new(Mask::new(args.mask.clone())));
    let view = View {
        orientation: Orientation {
            quarter_turns,
            mirror: args.mirror,
            flip: false,
        },
        mask,
    };
    CameraOptions {
        source: SourceOptions {
            size: Some(args.size),
            rate: Some(args.rate),
            controls: args.control.iter().cloned().collect(),
            view: Arc::new(view),
            ..SourceOptions::default()
        },
        ..CameraOptions::default()
    }
}

fn eye_settings(args: &WatchArgs, live: bool) -> Result<EyeSettings, Fault> {
    let times = |cooldown: Duration| TriggerTimes {
        // Within u32: a day at most.
        cooldown_ms: cooldown.as_millis() as u32,
        ..TriggerTimes::default()
    };
    let trigger = |name: &str, on, cooldown| -> Result<Trigger, Fault> {
        let name: Result<ZoneName, _> = name.parse();
        Ok(Trigger {
            name: name.map_err(|error| Fault::Argument(error.to_string()))?,
            on,
            times: times(cooldown),
            priority: 0,
            schedule: None,
            any_quality: args.any_quality,
        })
    };
    let mut triggers = vec![trigger(
        "start",
        On::Message {
            topic: START.to_owned(),
        },
        Duration::ZERO,
    )?];
    if let Some(every) = args.every {
        let ms = every.as_millis() as u32;
        triggers.push(trigger("every", On::Every { ms }, Duration::ZERO)?);
    }
    if args.on_change || args.every.is_none() {
        let zones = args.zone.iter().map(|zone| zone.name.clone()).collect();
        let on = On::Change { zones, dwell_ms: 0 };
        triggers.push(trigger("change", on, args.cooldown)?);
    }
    Ok(EyeSettings {
        change: ChangeSettings {
            sensitivity: args.sensitivity,
            ..ChangeSettings::default()
        },
        zones: args.zone.clone(),
        look: LookSettings {
            triggers,
            ..LookSettings::default()
        },
        quality: QualityLimits::default(),
        rate: args.rate,
        live,
    })
}

#[cfg(feature = "onnx")]
fn second_look(args: &WatchArgs) -> Result<Option<Box<dyn SecondLook + Send>>, Fault> {
    let Some(path) = &args.detector else {
        return Ok(None);
    };
    let second = crate::watch::DetectorLook::open(path)?;
    Ok(Some(Box::new(second)))
}

#[cfg(not(feature = "onnx"))]
fn second_look(_: &WatchArgs) -> Result<Option<Box<dyn SecondLook + Send>>, Fault> {
    Ok(None)
}
