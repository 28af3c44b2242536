//! Whatever neighbours and clients say about payment, an account keeps its count: nothing panics, everything in its ledger is
//! somewhere, what waits stays within its bounds, and every control frame that it writes can be read. Records are read back as they
//! were written.

#![no_main]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tombola_fuzz::any_ticket;
use tombola_mixing::Time;
use tombola_protocol::control::{ControlWriter, records};
use tombola_protocol::frame::{Frame, LinkMeta, Parity};
use tombola_protocol::payment::{Account, Fact, Owed, PaymentOutput, Payments, Setting, Side, Terms};
use tombola_protocol::unix::{UnixNanos, WallClock};
use tombola_sphinx::PACKET_LEN;
use tombola_tickets::por::{AckCheck, Challenge};
use tombola_tickets::{
    Address, ClassNumber, Domain, Limits, PriceClass, Restore, SignerKey, UnixSeconds, WinProbability,
};
use tombola_topology::IdentityKey;

const CLASS: ClassNumber = ClassNumber(1);

#[derive(Arbitrary, Debug)]
enum Event {
    Pass { milliseconds: u16 },
    Link { peer: u8, up: bool },
    Client { open: bool },
    Say { peer: u8, body: Vec<u8> },
    Packet { peer: u8, session: u32, counter: u32, ends: bool },
    First { counter: u32, check: [u8; 8], challenge: [u8; 20] },
    Forward { challenge: [u8; 20] },
    Guarantee { peer: u8, amount: u128 },
    Claimed { window: u32, spent: u128 },
    Settled { window: u32, amount: u128 },
    Durable { part: u8 },
    Finish,
}

/// 0 pays us, 1 is paid by us, 2 is a client, others are nobody.
fn peer(number: u8) -> IdentityKey {
    IdentityKey::of_seed(&[number % 4 + 1; 32])
}

fn account(number: u8) -> Address {
    Address::repeat_byte(number % 4 + 1)
}

fuzz_target!(|events: Vec<Event>| {
    let mut now = Time::from_nanos(1 << 40);
    let Ok(signer) = SignerKey::from_bytes(&[9; 32]) else { return };
    let domain = Domain::new(1, Address::repeat_byte(0xee));
    let owner = Account { address: signer.address(), signer, secret: [3; 32].into(), domain };
    let limits = Limits { settled_after: Duration::from_secs(12), claim_before_expiry: 60 };
    let wall = WallClock { at_zero: UnixNanos(1_800_000_000_000_000_000) };
    let setting =
        Setting { me: IdentityKey::of_seed(&[99; 32]), wall, limits, drops: Arc::default(), seed: [4; 32] };
    let Ok(win_probability) = WinProbability::from_ratio(1, 64) else { return };
    let price = PriceClass {
        face_value: 64_000,
        win_probability,
        valid_from: UnixSeconds(1_800_000_000),
        expiry: UnixSeconds(1_800_010_000),
        epoch: 1,
    };
    let prices = BTreeMap::from([(CLASS, price)]);
    let Ok(mut payments) = Payments::new(now, owner, setting, prices, &Restore::default()) else { return };
    payments.handle_fact(now, Fact::Deposit(1 << 60));
    let parity = Parity::of(0);
    let terms = |number| Some(Terms { account: account(number), class: CLASS });
    payments.set_terms(now, peer(0), Side::Earning, parity, terms(0));
    payments.set_terms(now, peer(1), Side::Paying, parity, terms(1));
    payments.set_client_class(now, parity, Some(CLASS));
    let (mut asked, mut owed) = (0_u64, vec![]);
    for event in events.into_iter().take(128) {
        match event {
            Event::Pass { milliseconds } => now += Duration::from_millis(milliseconds.into()),
            Event::Link { peer: number, up } => payments.handle_link(now, peer(number % 2), up),
            Event::Client { open: true } => payments.open_client(now, peer(2)),
            Event::Client { open: false } => payments.close_client(now, peer(2)),
            Event::Say { peer: number, body } => {
                let mut frame = Frame::zeroed();
                frame.set_control();
                let length = body.len().min(PACKET_LEN);
                frame.packet_mut()[..length].copy_from_slice(&body[..length]);
                let _ = payments.handle_control(now, &peer(number), frame);
            }
            Event::Packet { peer: number, session, counter, ends } => {
                let next = peer(1);
                let next = (!ends).then_some(&next);
                let taken =
                    payments.accept(now, &peer(number), parity, (session, counter), any_ticket(), next);
                owed.extend(taken);
            }
            Event::First { counter, check, challenge } => {
                let (check, first) = (AckCheck::from_bytes(check), Challenge::from_bytes(challenge));
                owed.extend(payments.accept_first(now, &peer(2), parity, (1, counter), check, &first));
            }
            Event::Forward { challenge } => {
                let mut frame = Frame::zeroed();
                frame.set_link_packet(parity, &LinkMeta { challenge, ack_check: [0; 8] });
                payments.forward(now, peer(1), frame, owed.pop().unwrap_or_else(Owed::default));
            }
            Event::Guarantee { peer: number, amount } => {
                payments.handle_fact(now, Fact::Guarantee { issuer: account(number), amount });
            }
            Event::Claimed { window, spent } => {
                let window = tombola_tickets::WindowNumber(window);
                payments.handle_fact(now, Fact::Claimed { recipient: account(1), window, spent });
            }
            Event::Settled { window, amount } => {
                let window = tombola_tickets::WindowNumber(window);
                payments.handle_fact(now, Fact::Settled { issuer: account(0), window, amount });
            }
            Event::Durable { part } => payments.set_durable(asked.saturating_sub(part.into())),
            Event::Finish => payments.finish(),
        }
        while let Some(output) = payments.poll_output(now) {
            let PaymentOutput::Send { frame, .. } = output else { continue };
            let Ok(tombola_protocol::frame::FrameKind::Control) = frame.kind() else { continue };
            let mut writer = ControlWriter::new(Frame::zeroed());
            for record in records(&frame) {
                writer.push(&record.expect("what is written can be read"));
            }
            assert!(writer.finish() == frame, "records are written as they were read");
        }
        while payments.poll_change().is_some() {
            asked += 1;
        }
        assert!(payments.ledger().is_conserved());
        assert!(payments.counts().waiting <= 1024);
        assert!(payments.poll_timeout() > now);
    }
});
