//! Packets: whatever comes over the line, both ends of it go on, and what decodes encodes again.
//!
//! The first byte chooses: even, the rest is bytes of the line; odd, it is packets, each behind a
//! byte with its length, that get a right checksum and frame, so that what lies behind is reached.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ocelli_wire::frame::checksum;
use ocelli_wire::packet::{MAX_PACKET_BYTES, encode};
use ocelli_wire::{Endpoint, FrameBuffer, FrameDecoder, Identity, Packet, Role, Timing};

fuzz_target!(|input: &[u8]| {
    let Some((choice, rest)) = input.split_first() else { return };
    let bytes = if choice % 2 == 0 { rest.to_vec() } else { framed(rest) };
    decode(&bytes);
    listen(Role::Agent, &bytes);
    listen(Role::Peer, &bytes);
});

fn framed(mut packets: &[u8]) -> Vec<u8> {
    let mut line = Vec::new();
    while let Some((&length, rest)) = packets.split_first() {
        let (packet, rest) = rest.split_at(rest.len().min(usize::from(length)));
        packets = rest;
        let mut raw = packet.to_vec();
        raw.extend(checksum(packet).to_le_bytes());
        let mut frame = vec![0; cobs::max_encoding_length(raw.len())];
        let n_bytes = cobs::encode(&raw, &mut frame);
        line.extend(&frame[..n_bytes]);
        line.push(0);
    }
    line
}

fn decode(bytes: &[u8]) {
    let mut decoder = FrameDecoder::new();
    for packet in bytes.iter().filter_map(|&byte| decoder.push(byte)).flatten() {
        let mut again = [0; MAX_PACKET_BYTES];
        let n_bytes = encode(&packet.head, packet.message.as_ref(), &mut again)
            .expect("what was decoded fits a packet");
        assert_eq!(Packet::decode(&again[..n_bytes]), Some(packet));
    }
}

fn listen(role: Role, bytes: &[u8]) {
    let timing = Timing::for_baud(115_200);
    let mut end: Endpoint<2> = Endpoint::new(Identity::new(role, "fuzz", 1), timing, 0);
    let mut frame = FrameBuffer::new();
    for (now, mut piece) in (0..).step_by(40).zip(bytes.chunks(50)) {
        while end.on_bytes(&mut piece, now).is_some() {}
        while end.on_tick(now).is_some() {}
        while end.next_frame(&mut frame, now).is_some() {}
    }
}
