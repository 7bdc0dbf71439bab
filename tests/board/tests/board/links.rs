//! Serial lines and the network.

use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use ocelli_board_tests::bench::Bench;
use ocelli_board_tests::suite::Test;
use ocelli_board_tests::tests;

const LIMIT: Duration = Duration::from_secs(20);
/// Answers each line on a serial line; ends when the line goes away.
const ECHO: &str = "trap '' HUP; stty -F \"$tty\" 115200 raw -echo; exec <>\"$tty\"; echo ready; \
                    while read -r line; do echo \"ack:$line\" >&0 || break; done; echo gone";

pub(crate) const TESTS: &[Test] = tests![&[];
    a_serial_line_carries_lines_both_ways,
    a_serial_line_carries_all_bytes_unchanged,
    a_usb_serial_line_survives_being_unplugged_and_plugged_in,
    a_pulled_cable_stops_traffic_until_it_is_plugged_in,
    a_port_of_the_guest_is_reached_from_the_host,
];

fn a_serial_line_carries_lines_both_ways(bench: &Bench) {
    let guest = bench.guest();
    let echo = guest.spawn(&format!("tty=/dev/ttyS0; {ECHO}")).unwrap();
    echo.line(LIMIT).unwrap();
    for i in 0..10 {
        guest
            .serial()
            .send(format!("hello {i}\n").as_bytes())
            .unwrap();
        let answer = guest.serial().receive_through(b'\n', LIMIT).unwrap();
        assert_eq!(String::from_utf8_lossy(&answer), format!("ack:hello {i}\n"));
    }
}

fn a_serial_line_carries_all_bytes_unchanged(bench: &Bench) {
    let guest = bench.guest();
    let bytes: Vec<u8> = (0..=255).collect();
    let job = guest
        .spawn("stty -F /dev/ttyS0 115200 raw -echo; exec <>/dev/ttyS0; echo ready; head -c 256 >/tmp/in; cat /tmp/in >&0")
        .unwrap();
    job.line(LIMIT).unwrap();
    guest.serial().send(&bytes).unwrap();
    assert_eq!(guest.serial().receive(256, LIMIT).unwrap(), bytes);
}

fn a_usb_serial_line_survives_being_unplugged_and_plugged_in(bench: &Bench) {
    let guest = bench.guest();
    for round in 0..2 {
        let adapter = guest.plug_usb_serial().unwrap();
        let echo = guest.spawn(&format!("tty=/dev/ttyUSB0; {ECHO}")).unwrap();
        echo.line(LIMIT).unwrap();
        adapter.line().send(b"over usb\n").unwrap();
        let answer = adapter.line().receive_through(b'\n', LIMIT).unwrap();
        assert_eq!(
            String::from_utf8_lossy(&answer),
            "ack:over usb\n",
            "round {round}"
        );
        adapter.unplug().unwrap();
        // The reader sees the end of its line rather than hanging.
        assert_eq!(echo.line(LIMIT).unwrap().as_deref(), Some("gone"));
        echo.wait(LIMIT).unwrap();
        guest.await_true("[ ! -e /dev/ttyUSB0 ]", LIMIT).unwrap();
    }
}

fn a_pulled_cable_stops_traffic_until_it_is_plugged_in(bench: &Bench) {
    let guest = bench.guest();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let say = |word: &str| format!("echo {word} | nc -w 3 10.0.2.2 {port}");
    let (sender, heard) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A connection begun while the cable was out may come late and say nothing.
            if let Some(Ok(line)) = BufReader::new(stream).lines().next() {
                let _ = sender.send(line);
            }
        }
    });
    let heard = || heard.recv_timeout(LIMIT).unwrap();
    guest.sh(&say("before")).unwrap();
    assert_eq!(heard(), "before");
    guest.network().pull_cable().unwrap();
    guest
        .await_true("[ \"$(cat /sys/class/net/eth0/carrier)\" = 0 ]", LIMIT)
        .unwrap();
    assert_ne!(guest.run(&say("during"), LIMIT).unwrap().status, 0);
    guest.network().plug_cable().unwrap();
    guest.await_true(&say("after"), LIMIT).unwrap();
    assert_eq!(heard(), "after");
}

fn a_port_of_the_guest_is_reached_from_the_host(bench: &Bench) {
    let guest = bench.guest();
    let address = guest.network().forward(8080).unwrap();
    let server = guest.spawn("echo from the guest | nc -l -p 8080").unwrap();
    guest
        .await_true("grep -q ':1F90 ' /proc/net/tcp /proc/net/tcp6", LIMIT)
        .unwrap();
    let mut text = String::new();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text, "from the guest\n");
    drop(server);
}
