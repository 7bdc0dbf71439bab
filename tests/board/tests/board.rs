//! Tests on the emulated board: `cargo test -p ocelli-board-tests`.

use std::process::ExitCode;

use ocelli_board_tests::suite;

#[path = "board/agent.rs"]
mod agent;
#[path = "board/camera.rs"]
mod camera;
#[path = "board/links.rs"]
mod links;
#[path = "board/pictures.rs"]
mod pictures;
#[path = "board/pins.rs"]
mod pins;
#[path = "board/power.rs"]
mod power;
#[path = "board/shell.rs"]
mod shell;
#[path = "board/watch.rs"]
mod watch;

fn main() -> ExitCode {
    suite::main(
        &[
            shell::TESTS,
            pictures::TESTS,
            camera::TESTS,
            links::TESTS,
            pins::TESTS,
            power::TESTS,
            watch::TESTS,
            &agent::tests(),
        ]
        .concat(),
    )
}
