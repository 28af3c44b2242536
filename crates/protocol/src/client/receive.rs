//! The way in: from a mail frame to a message, a report, a loop.

use core::cell::Cell;
use core::time::Duration;

use tombola_mixing::Time;
use tombola_sphinx::{ReplayFilter, ReplayTag, Routing, payload_of, payload_of_mut, plaintext, verify};

use super::{Client, ClientEvent, Control, FinalState, Gated, Received, day_of};
use crate::drops::DropReason;
use crate::fragment::MessageId;
use crate::frame::Frame;
use crate::inbox::Taken;
use crate::opener::unpaid;
use crate::payload::{self, BLOCKS_MAX, Blocks, Flags, Payload, Report};
use crate::records::{self, InboxRecord, tables};
use crate::replay::{ReplayError, TagFilter};

/// Blocks for answers that a recipient gets unasked where packets are lost: two packets of them, since one may be lost.
const SUPPLY_UNASKED: u16 = 10;

/// A filter that notes the tag that it let pass.
struct Noting<'a> {
    filter: &'a TagFilter,
    passed: Cell<u64>,
}

impl ReplayFilter for Noting<'_> {
    type Rejected = ReplayError;

    fn check_and_insert(&self, tag: &ReplayTag) -> Result<(), ReplayError> {
        self.passed.set(crate::replay::fingerprint(tag));
        self.filter.check_and_insert(tag)
    }
}

impl Client {
    pub(super) fn open_mail(
        &mut self,
        now: Time,
        frame: &mut Frame,
        held: Duration,
    ) -> Result<(), DropReason> {
        let noting = Noting { filter: &self.seen, passed: Cell::new(0) };
        let routing = unpaid(verify(&self.keys.sphinx, frame.packet_mut()), &noting)?;
        let fingerprint = noting.passed.get();
        let Routing::Final(destination) = routing else { return Err(DropReason::BadNextHop) };
        // An answer through one of its own blocks is still in the layers of the way back.
        let Some((own, keys)) = self.keyring.get(&destination.identifier) else {
            let text = plaintext(payload_of(frame.packet())).map_err(|_| DropReason::BadPayload)?;
            return match payload::parse(text) {
                // Nobody else can make one that passes for a loop, and it is known once; its tag need not be kept.
                Ok(Payload::Cover) => {
                    if self.loops.returned(now, destination.identifier).is_some()
                        && let Some(from) = self.delivery.returned(now)
                    {
                        let rng = self.builder.rng();
                        self.outbox.handle_mended(now, from, rng);
                        self.conversations.look_soon(now, self.pace.round_trip * 2, rng);
                    }
                    Ok(())
                }
                Ok(Payload::Probe) => {
                    self.events.push_back(ClientEvent::Probe(destination.identifier));
                    Ok(())
                }
                Ok(payload) => {
                    self.keep_tag(now, fingerprint);
                    self.take(now, payload, None, held)
                }
                Err(_) => Err(DropReason::BadFragment),
            };
        };
        let keys = keys.clone();
        if self.keyring.remove(&destination.identifier) {
            self.changes.delete(tables::KEYS, &destination.identifier);
        }
        self.keep_tag(now, fingerprint);
        let text = keys.open(payload_of_mut(frame.packet_mut())).map_err(|_| DropReason::BadPayload)?;
        match payload::parse(text) {
            Ok(Payload::Cover | Payload::Probe) => Ok(()),
            Ok(payload) => self.take(now, payload, Some(own), held),
            Err(_) => Err(DropReason::BadFragment),
        }
    }

    /// Takes what is not cover in; `via` is the own message whose reply block it came through.
    fn take(
        &mut self,
        now: Time,
        payload: Payload<'_>,
        via: Option<MessageId>,
        held: Duration,
    ) -> Result<(), DropReason> {
        if !self.keeps {
            // A mix node's account has no correspondents.
            return Err(DropReason::Discarded);
        }
        // Whoever answers a message has it.
        if let (Some(own), Payload::Short { .. } | Payload::Fragment { .. } | Payload::Request { .. }) =
            (via, &payload)
        {
            self.end(own, FinalState::Acknowledged);
        }
        match payload {
            Payload::Cover | Payload::Probe => Ok(()),
            Payload::Fragment { message, shape, place, data } => {
                let taken = self.inbox.fragment(now, message, shape, place, data, via, &mut self.changes);
                self.taken(now, message, via, held, shape.fragments(), taken)
            }
            Payload::Short { message, flags, blocks, body } => {
                if via.is_none() {
                    self.keep_blocks(message, flags, blocks);
                }
                if flags.has(Flags::PING) {
                    self.report(now, message, via, Report::Whole);
                    return Ok(());
                }
                let taken = self.inbox.short(message, body, &mut self.changes);
                let known = taken == Taken::Known;
                let result = self.taken(now, message, via, held, 1, taken);
                if known {
                    // Its sender has not heard of it.
                    self.acknowledge(message, via);
                }
                if let Some(own) = via
                    && flags.has(Flags::ASKS)
                {
                    if known {
                        self.make_up(own, BLOCKS_MAX as u16);
                    } else {
                        self.supply(own, BLOCKS_MAX as u16);
                    }
                }
                result
            }
            Payload::Blocks { message, shape: _, flags, blocks } => {
                if via.is_none() {
                    self.keep_blocks(message, flags, blocks);
                }
                if flags.has(Flags::ASKS) && self.inbox.knows(&message) {
                    self.acknowledge(message, via);
                } else if flags.has(Flags::ASKS) {
                    self.inbox.asked(now, message, via);
                } else if via.is_none() {
                    self.outbox.handle_blocks(now, message);
                }
                Ok(())
            }
            Payload::Report { message, report } => {
                if report == Report::Whole
                    && let Some(Some(left)) = self.pings.get(&message).copied()
                {
                    self.pings.remove(&message);
                    self.events.push_back(ClientEvent::Pong { message, took: now - left });
                } else if self.outbox.handle_report(now, message, report, self.delivery.share()) {
                    self.end(message, FinalState::Acknowledged);
                    // Where much is lost, an answer may need more blocks than came with the message.
                    if self.delivery.copies() > 1 {
                        self.make_up(message, SUPPLY_UNASKED);
                    }
                }
                Ok(())
            }
            Payload::Request { message, count } => {
                // Only whoever has a block of that message can ask for more.
                if via == Some(message) {
                    self.supply(message, count);
                }
                Ok(())
            }
        }
    }

    fn taken(
        &mut self,
        now: Time,
        message: MessageId,
        via: Option<MessageId>,
        held: Duration,
        packets: u32,
        taken: Taken,
    ) -> Result<(), DropReason> {
        match taken {
            Taken::Whole(body) => {
                let record = InboxRecord {
                    length: u32::try_from(body.len()).unwrap_or(u32::MAX),
                    via,
                    answerable: self.pools.is_answerable(&message),
                    received_ns: self.wall.at(now).0,
                    held,
                    packets,
                };
                self.inbox.keep(message, &record, &mut self.changes);
                if let Some(own) = via {
                    self.conversations.answered(&own);
                    self.put_conversation(own);
                }
                let event = ClientEvent::Received(Received::new(message, &record, body, false));
                self.changes.gate(Gated::Event(event));
                self.acknowledge(message, via);
                Ok(())
            }
            Taken::Partial { have, count } => {
                self.events.push_back(ClientEvent::Progress { message, have, count });
                Ok(())
            }
            Taken::Duplicate | Taken::Known => Err(DropReason::DuplicateFragment),
            Taken::Contradiction => Err(DropReason::BadFragment),
        }
    }

    /// Tells the sender that a message is here, as soon as it is safe here.
    fn acknowledge(&mut self, message: MessageId, via: Option<MessageId>) {
        for _ in 0..self.delivery.copies() {
            let control = Control::Report { message, via, report: Report::Whole };
            self.changes.gate(Gated::Control(control));
        }
    }

    fn keep_blocks(&mut self, message: MessageId, flags: Flags, blocks: Blocks<'_>) {
        let answerable = flags.has(Flags::REPLIES);
        // Of no other epoch can keys be in use now.
        let current = self.views.current.number();
        if !(current.saturating_sub(1)..=current.saturating_add(1)).contains(&blocks.epoch) {
            return;
        }
        for block in blocks.iter() {
            if let Some(number) = self.pools.add(message, answerable, blocks.epoch, block) {
                let key = records::block_key(message, number);
                self.changes.put(tables::BLOCKS, &key, records::block(blocks.epoch, block));
            }
        }
    }

    fn keep_tag(&mut self, now: Time, fingerprint: u64) {
        if self.keeps {
            let day = day_of(self.wall.seconds(now));
            self.changes.put(tables::TAGS, &records::tag_key(day, fingerprint), Vec::new());
        }
    }
}
