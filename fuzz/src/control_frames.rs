//! Control-channel frames: whatever the peer sends, decoding ends, and what it yields survives the wire.

#![no_main]

use bytes::BytesMut;
use crosstie_process::control::{ToSupervisor, ToWorker, decode, encode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut wire = BytesMut::from(data);
    while let Ok(Some(message)) = decode::<ToSupervisor>(&mut wire) {
        let frame = encode(&message).expect("what fitted a frame fits one again");
        let again = decode::<ToSupervisor>(&mut BytesMut::from(&frame[..])).expect("its own frame");
        assert_eq!(again, Some(message));
    }
    assert!(wire.len() <= data.len());
    let mut wire = BytesMut::from(data);
    while let Ok(Some(_)) = decode::<ToWorker>(&mut wire) {}
});
