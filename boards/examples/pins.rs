//! Shows what a board is and moves its pins, one JSON object a line.
//!
//! ```text
//! pins                          the board, its health, what is missing, its pins
//! pins watch SECONDS PIN…       prints the edges of inputs
//! pins drive PIN MS…            drives an output: active, inactive, … each for so many milliseconds
//! pins follow SECONDS IN OUT    makes an output follow an input
//! ```
//! A pin that begins with `!` is active-low. `--board FILE` before the rest takes a definition of
//! one's own, `--debounce MS` debounces inputs, `--fake` uses pins without hardware.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::time::{ClockId, clock_gettime};
use ocelli_boards::{
    Bias, Board, Edge, Facts, FakePins, GpioPins, Health, Needs, PinId, PinPlan, PinRequest,
    PinUse, Pins, PowerMeter, Tree, detect, plan, report,
};
use serde_json::json;

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failure> {
    let mut options = Options::default();
    let mut arguments = std::env::args().skip(1).peekable();
    while let Some(option) = arguments.next_if(|argument| argument.starts_with("--")) {
        let mut value = || arguments.next().ok_or(format!("{option} needs a value"));
        match option.as_str() {
            "--board" => options.board = Some(Board::load(Path::new(&value()?))?),
            "--debounce" => options.debounce = Duration::from_millis(value()?.parse()?),
            "--fake" => options.fake = true,
            _ => return Err(format!("unknown option {option}").into()),
        }
    }
    let rest: Vec<String> = arguments.collect();
    let words: Vec<&str> = rest.iter().map(String::as_str).collect();
    let board = show_board(options.board.take())?;
    match words.as_slice() {
        [] => show_pins(&board),
        ["watch", seconds, pins @ ..] => watch(&board, &options, seconds.parse()?, pins),
        ["drive", pin, steps @ ..] => drive(&board, &options, pin, steps),
        ["follow", seconds, input, output] => {
            follow(&board, &options, seconds.parse()?, [input, output])
        }
        _ => Err("see the first lines of this example".into()),
    }
}

#[derive(Default)]
struct Options {
    board: Option<Board>,
    debounce: Duration,
    fake: bool,
}

fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}

fn show_board(own: Option<Board>) -> Result<Board, Failure> {
    let tree = Tree::default();
    let facts = Facts::read(&tree, SystemTime::now());
    let boards: Vec<Board> = own.into_iter().chain(Board::built_in()).collect();
    let found = detect(&facts, &boards);
    let board = found.board;
    println!(
        "{}",
        json!({ "board": board.name, "why": found.why, "compatible": facts.compatible,
        "cores": facts.cores, "ram_bytes": facts.ram_bytes, "kernel": facts.kernel, "nodes": facts.nodes,
        "userland_bits": facts.userland_bits, "features": facts.cpu_features })
    );
    let health = Health::read(&tree, &board);
    let power = PowerMeter::default().read(&tree, &board).power;
    println!(
        "{}",
        json!({ "celsius": health.temperature.as_ref().map(|it| it.celsius),
        "governors": health.governors, "available_mb": health.memory.map(|it| it.available_mb),
        "waiting_percent": health.memory.and_then(|it| it.pressure_percent),
        "throttling_known": health.throttling.is_known(), "watts": power.watts(),
        "measured": power.is_measured() })
    );
    let needs = Needs {
        model_bytes: 64 << 20,
        pins: true,
        serial: true,
        camera: true,
    };
    for finding in report(&facts, &board, &health, needs) {
        println!(
            "{}",
            json!({ "level": finding.level.name(), "what": finding.what, "advice": finding.advice })
        );
    }
    Ok(board)
}

fn show_pins(board: &Board) -> Result<(), Failure> {
    for pin in &board.gpio.pins {
        println!(
            "{}",
            json!({ "pin": pin.name, "line": pin.line, "header": pin.header,
            "aliases": pin.aliases, "reserved": pin.reserved })
        );
    }
    Ok(())
}

fn request(pin: &str, usage: impl FnOnce(bool) -> PinUse) -> PinRequest {
    let plain = pin.trim_start_matches('!');
    PinRequest {
        name: plain.into(),
        pin: plain.into(),
        usage: usage(plain != pin),
        insist: false,
    }
}

fn input(pin: &str, debounce: Duration) -> PinRequest {
    request(pin, |active_low| PinUse::Input {
        active_low,
        bias: Bias::AsIs,
        edges: true,
        debounce,
    })
}

fn output(pin: &str) -> PinRequest {
    request(pin, |active_low| PinUse::Output {
        active_low,
        safe: false,
    })
}

fn open(
    board: &Board,
    options: &Options,
    requests: &[PinRequest],
) -> Result<Box<dyn Pins>, Failure> {
    let plans: Vec<PinPlan> = plan(board, requests)?;
    if options.fake {
        return Ok(Box::new(FakePins::new(plans)?.0));
    }
    let pins = GpioPins::open(&Tree::default(), plans)?;
    println!(
        "{}",
        json!({ "open": requests.iter().map(|it| &it.name).collect::<Vec<_>>() })
    );
    Ok(Box::new(pins))
}

/// Waits for edges until `end` and hands each to `seen`.
fn each_edge(
    pins: &mut dyn Pins,
    end: Duration,
    mut seen: impl FnMut(&mut dyn Pins, Edge) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut edges = Vec::new();
    while now() < end {
        let wake = pins
            .deadline()
            .unwrap_or(end)
            .min(end)
            .saturating_sub(now());
        let wake = PollTimeout::try_from(wake + Duration::from_millis(1))?;
        poll(
            &mut pins
                .descriptors()
                .into_iter()
                .map(|it| PollFd::new(it, PollFlags::POLLIN))
                .collect::<Vec<_>>(),
            wake,
        )?;
        pins.poll(now(), &mut edges)?;
        for edge in edges.drain(..) {
            seen(pins, edge)?;
        }
    }
    Ok(())
}

fn show_edge(pins: &dyn Pins, edge: Edge) {
    let late = now().saturating_sub(edge.at).as_micros() as u64;
    println!(
        "{}",
        json!({ "edge": pins.plans()[edge.pin.0].name, "active": edge.active,
        "at_ms": edge.at.as_millis() as u64, "seen_after_us": late })
    );
}

fn watch(board: &Board, options: &Options, seconds: u64, pins: &[&str]) -> Result<(), Failure> {
    let requests: Vec<PinRequest> = pins
        .iter()
        .map(|pin| input(pin, options.debounce))
        .collect();
    let mut pins = open(board, options, &requests)?;
    each_edge(
        &mut *pins,
        now() + Duration::from_secs(seconds),
        |pins, edge| {
            show_edge(pins, edge);
            Ok(())
        },
    )
}

fn drive(board: &Board, options: &Options, pin: &str, steps: &[&str]) -> Result<(), Failure> {
    let mut pins = open(board, options, &[output(pin)])?;
    let mut active = false;
    for step in steps {
        active = !active;
        pins.set(PinId(0), active, now())?;
        println!(
            "{}",
            json!({ "set": pin, "active": active, "reads": pins.get(PinId(0))? })
        );
        std::thread::sleep(Duration::from_millis(step.parse()?));
    }
    Ok(())
}

fn follow(board: &Board, options: &Options, seconds: u64, pair: [&str; 2]) -> Result<(), Failure> {
    let requests = [input(pair[0], options.debounce), output(pair[1])];
    let mut pins = open(board, options, &requests)?;
    each_edge(
        &mut *pins,
        now() + Duration::from_secs(seconds),
        |pins, edge| {
            pins.set(PinId(1), edge.active, now())?;
            show_edge(pins, edge);
            Ok(())
        },
    )
}
