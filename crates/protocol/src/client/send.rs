//! The way out: what a tick emits, and what is built ahead of it.

use std::sync::Arc;

use tombola_mixing::{Stream, Time};
use tombola_sphinx::SURB_LEN;

use super::{
    AheadBlock, BLOCKS_AHEAD, Built, Client, ClientEvent, Content, Control, Emitted, FinalState,
    PREPARED_AHEAD, Ready,
};
use crate::fragment::MessageId;
use crate::frame::Frame;
use crate::outbox::{Part, Step, Target};
use crate::packet::{End, FirstLink, Identifier, Prepared};
use crate::payload::{BLOCKS_MAX, Blocks, Flags, Plaintext, Report, payload_type, short_max};
use crate::records::{self, tables};
use crate::replyblocks::SPARE_FOR_LOOKS;
use crate::view::{EpochView, Recipient};

/// Blocks that are asked for, and given, at one time.
const SUPPLY_MOST: u16 = 64;
/// Reply blocks that a message brings for answers right away, if it may be answered and they fit: one for a short answer,
/// and two to send it again or to ask for more.
const BLOCKS_FOR_REPLIES: usize = 3;
/// Conversations that are looked at in one go, and as many packets may wait before the next ones are.
const LOOKS_AT_ONCE: usize = 4;
const CONTROL_BUSY: usize = 64;

impl Client {
    /// Builds packets ahead, as many as share registers, if some are missing. Returns whether it did.
    pub fn work(&mut self, now: Time) -> bool {
        self.expire(now);
        if !self.connected {
            return false;
        }
        // Blocks come first: a message that needs them is then built in the time of one packet.
        if self.keeps && self.ready_blocks.len() < BLOCKS_AHEAD {
            return self.build_block_ahead();
        }
        if self.wants_ready() && self.prepare_waiting(now) {
            return true;
        }
        if self.ready_loop.is_none() {
            self.ready_loop = Some(self.build_loop());
            return true;
        }
        self.cover.work(&self.views)
    }

    pub(super) fn emit(&mut self, due: Time, stream: Stream) -> Frame {
        if stream != Stream::Loop {
            self.cover.tick();
        }
        let mut frame = match stream {
            Stream::Main if self.told != self.collects => {
                self.told = self.collects;
                return Frame::collect(self.collects, self.collected);
            }
            Stream::Main => {
                if self.ready.is_empty() {
                    self.prepare_waiting(due);
                }
                match self.ready.pop_front() {
                    Some(ready) => self.emit_ready(due, ready),
                    None => {
                        self.counts.cover += 1;
                        self.cover.take(&self.views).frame
                    }
                }
            }
            Stream::Loop => {
                self.counts.loops += 1;
                let (identifier, prepared) = self.ready_loop.take().unwrap_or_else(|| self.build_loop());
                // One that the gateway is asked to keep says nothing about the network. And a full monitor means that
                // thousands are under way: the loop goes out as cover, uncounted.
                if self.told {
                    let _ = self.loops.sent(due, identifier, ());
                }
                prepared.frame
            }
            Stream::Drop => {
                self.counts.drops += 1;
                self.cover.take(&self.views).frame
            }
        };
        // The low bits are what the field holds.
        frame.set_acknowledged(self.collected as u16);
        frame
    }

    fn emit_ready(&mut self, due: Time, ready: Ready) -> Frame {
        match ready.content {
            Content::Message { message, part, attempt, .. } => {
                self.counts.real += 1;
                self.counts.retransmitted += u64::from(attempt > 0);
                self.tell_emitted(due, message, part, attempt, ready.built.prepared.delays);
                match self.outbox.emitted(due, message, self.delivery.share()) {
                    Step::None => {}
                    Step::Progress => self.put_outgoing(message),
                    Step::Sent => {
                        self.put_outgoing(message);
                        self.events.push_back(ClientEvent::Sent(message));
                    }
                }
            }
            Content::Control(control) => {
                self.counts.control += 1;
                if let Control::Ping { message, .. } = control
                    && let Some(left) = self.pings.get_mut(&message)
                {
                    *left = Some(due);
                }
            }
            Content::Probe => self.counts.probes += 1,
        }
        ready.built.prepared.frame
    }

    fn tell_emitted(
        &mut self,
        due: Time,
        message: MessageId,
        part: Part,
        attempt: u32,
        delays: core::time::Duration,
    ) {
        let Some(outgoing) = self.outbox.get(&message) else { return };
        let shape = outgoing.shape;
        let index = match part {
            Part::Ask => return,
            Part::Short => 0,
            Part::Fragment(place) => {
                let (segment, position) = (u32::from(place.segment), u32::from(place.position));
                let data = u32::try_from(shape.data_in(place.segment)).unwrap_or(u32::MAX);
                match position.checked_sub(data) {
                    None => segment * crate::fragment::SEGMENT_DATA + position,
                    Some(parity) => shape.fragments() + segment * crate::fragment::SEGMENT_DATA / 2 + parity,
                }
            }
        };
        self.events.push_back(ClientEvent::Emitted(Emitted {
            message,
            index,
            count: shape.fragments(),
            attempt,
            queued: outgoing.queued,
            emitted: due,
            delays,
        }));
    }

    /// Whether one more real packet may be built ahead: the first, or one that overtakes a long message's.
    fn wants_ready(&self) -> bool {
        self.ready.is_empty() || (self.ready.len() < PREPARED_AHEAD && self.outbox.has_fresh())
    }

    /// Builds the next thing that waits, if anything does.
    fn prepare_waiting(&mut self, now: Time) -> bool {
        if let Some(probe) = self.probes.pop_front() {
            let filler = self.builder.filler(payload_type::PROBE);
            let prepared = self.builder.build(
                &probe.view,
                FirstLink::FromClient,
                &probe.mixes,
                &End::Node(probe.end),
                probe.identifier,
                &filler,
            );
            let built = Built { prepared, through: None };
            self.ready.push_back(Ready::new(built, Content::Probe));
            return true;
        }
        // Turn about, so that neither waits for all of the other.
        self.control_turn = !self.control_turn;
        (self.control_turn && self.prepare_control()) || self.prepare_message(now) || self.prepare_control()
    }

    fn prepare_message(&mut self, now: Time) -> bool {
        let Self { outbox, views, pools, delivery, .. } = self;
        let usable = |epoch| views.by_number(epoch).is_some();
        let next = outbox.next(|outgoing| match &outgoing.target {
            Target::Address(to) => views.current.gateway(&to.address.gateway).is_some(),
            Target::Reply(to) => match pools.len(to, usable) {
                0 => false,
                // The last block waits until something has come back since: without any nobody could say that all were lost.
                1 => outgoing.attempt == 0 || delivery.carries_since(outgoing.left()),
                _ => true,
            },
        });
        let Some(next) = next else { return false };
        if let Some(built) = self.build_part(now, next.message, next.part) {
            let content = Content::Message {
                message: next.message,
                part: next.part,
                first: next.first,
                attempt: next.attempt,
            };
            // The beginning of a message overtakes the middle of another, but no other beginning.
            let place = match self.ready.iter().rposition(Ready::is_overtaken_no_more) {
                _ if !next.first => self.ready.len(),
                Some(last) => last + 1,
                None => 0,
            };
            self.ready.range_mut(place..).for_each(|later| later.overtaken += 1);
            self.ready.insert(place, Ready::new(built, content));
            return true;
        }
        // It has asked for a block in place of using the last one.
        self.outbox.withdrawn(next.message, next.part);
        self.prepare_control()
    }

    fn build_part(&mut self, now: Time, message: MessageId, part: Part) -> Option<Built> {
        let outgoing = self.outbox.get(&message)?;
        let (shape, replies) = (outgoing.shape, outgoing.replies);
        let remaining = outgoing.remaining() + 1;
        match outgoing.target.clone() {
            Target::Address(to) => {
                let text = match part {
                    Part::Fragment(place) => {
                        let data = self.outbox.fragment(message, place)?;
                        Plaintext::fragment(message, shape, place, &data)
                    }
                    Part::Short => {
                        let body = outgoing.body.clone();
                        let most = (1..=BLOCKS_MAX).rev().find(|&n| short_max(n) >= body.len())?;
                        let answers = if replies > 0 { BLOCKS_FOR_REPLIES } else { 0 };
                        let count = (self.delivery.copies() + answers).min(most);
                        let (epoch, blocks) = self.take_blocks(message, count, replies > 0);
                        Plaintext::short(message, replies_flag(replies), Blocks::new(epoch, &blocks), &body)
                    }
                    Part::Ask => {
                        let answers = if replies > 0 { BLOCKS_FOR_REPLIES } else { 0 };
                        let count = (1 + self.delivery.copies() + answers).min(BLOCKS_MAX);
                        let (epoch, blocks) = self.take_blocks(message, count, replies > 0);
                        let flags = replies_flag(replies).with(Flags::ASKS);
                        Plaintext::blocks(message, shape, flags, Blocks::new(epoch, &blocks))
                    }
                };
                self.build_to(&to, text.as_bytes())
            }
            Target::Reply(to) => {
                // One block is kept to ask for more; the last one, if it has to be sent again, does nothing else.
                let views = &self.views;
                let left = self.pools.len(&to, |epoch| views.by_number(epoch).is_some());
                let again = outgoing.attempt > 0;
                // A short answer asks for more itself.
                if !outgoing.is_short()
                    && (left <= remaining || (again && left == remaining + 1))
                    && (left > 1 || again)
                    && self.pools.request(now, &to, self.pace.round_trip)
                {
                    let count = remaining + 3 - left.min(remaining);
                    let count = u16::try_from(count).unwrap_or(u16::MAX).min(SUPPLY_MOST);
                    self.control.push_front(Control::Request { message: to, count });
                    if left == 1 {
                        return None;
                    }
                }
                let asks = if again || left < BLOCKS_FOR_REPLIES { Flags::ASKS } else { Flags::default() };
                let text = match part {
                    Part::Fragment(place) => {
                        let data = self.outbox.fragment(message, place)?;
                        Plaintext::fragment(message, shape, place, &data)
                    }
                    Part::Short => Plaintext::short(message, asks, Blocks::new(0, &[]), &outgoing.body),
                    Part::Ask => Plaintext::blocks(message, shape, Flags::ASKS, Blocks::new(0, &[])),
                };
                self.build_through(&to, text.as_bytes())
            }
        }
    }

    fn prepare_control(&mut self) -> bool {
        while let Some(control) = self.control.pop_front() {
            if let Some(built) = self.build_control(&control) {
                self.ready.push_back(Ready::new(built, Content::Control(control)));
                return true;
            }
            self.forget_ping(Some(&control));
        }
        false
    }

    /// `None` if it cannot be sent any more: there is no block left, or nobody to send it to.
    fn build_control(&mut self, control: &Control) -> Option<Built> {
        match control {
            Control::Report { message, via: None, report } => {
                self.build_through(message, Plaintext::report(*message, report).as_bytes())
            }
            Control::Report { message, via: Some(own), report } => {
                let to = self.conversations.get(own)?.with.clone();
                self.build_to(&to, Plaintext::report(*message, report).as_bytes())
            }
            Control::Request { message, count } => {
                self.build_through(message, Plaintext::request(*message, *count).as_bytes())
            }
            Control::Supply { message, count } => {
                let to = self.conversations.get(message)?.with.clone();
                let shape = crate::fragment::Shape::of(0)?;
                let (epoch, blocks) = self.take_blocks(*message, usize::from(*count).min(BLOCKS_MAX), true);
                let text = Plaintext::blocks(*message, shape, Flags::REPLIES, Blocks::new(epoch, &blocks));
                self.build_to(&to, text.as_bytes())
            }
            Control::Ping { message, to } => {
                let count = self.delivery.copies().min(BLOCKS_MAX);
                let (epoch, blocks) = self.take_blocks(*message, count, false);
                let text = Plaintext::short(*message, Flags::PING, Blocks::new(epoch, &blocks), &[]);
                self.build_to(to, text.as_bytes())
            }
        }
    }

    /// A packet to an address, over a fresh route.
    fn build_to(&mut self, to: &Recipient, plaintext: &[u8]) -> Option<Built> {
        let drawn = Arc::clone(self.views.draw(self.builder.rng()));
        // A gateway that joined since the drawn epoch is only in the current one.
        let view = if drawn.gateway(&to.address.gateway).is_some() {
            drawn
        } else {
            Arc::clone(&self.views.current)
        };
        let gateway = view.gateway(&to.address.gateway)?;
        let end = End::Client { gateway, mailbox: to.address.mailbox, key: to.key };
        let mixes = view.draw_route(self.builder.rng());
        let identifier = self.builder.identifier();
        let prepared = self.builder.build(&view, FirstLink::FromClient, &mixes, &end, identifier, plaintext);
        Some(Built { prepared, through: None })
    }

    /// A packet through a block that came with `message`.
    ///
    /// That the block goes from the store is asked for before the packet leaves. After a crash within the time that writing
    /// takes it is used once more: the first hop drops the second packet as a replay, and what was in it is sent again.
    fn build_through(&mut self, message: &MessageId, plaintext: &[u8]) -> Option<Built> {
        loop {
            let views = &self.views;
            let block = self.pools.take(message, |epoch| views.by_number(epoch).is_some())?;
            if self.pools.is_answerable(message) {
                self.changes.delete(tables::BLOCKS, &records::block_key(*message, block.number));
            }
            let view = Arc::clone(self.views.by_number(block.epoch)?);
            if let Some(prepared) = self.builder.build_reply(&view, &block.bytes, plaintext) {
                return Some(Built { prepared, through: Some(block.epoch) });
            }
        }
    }

    /// Reply blocks of the current epoch whose answers belong to `message`.
    fn take_blocks(&mut self, message: MessageId, count: usize, kept: bool) -> (u64, Vec<[u8; SURB_LEN]>) {
        let epoch = self.views.current.number();
        let mut blocks = Vec::with_capacity(count);
        while blocks.len() < count {
            if self.ready_blocks.is_empty() && !self.build_block_ahead() {
                break;
            }
            let Some(AheadBlock { bytes, keys }) = self.ready_blocks.pop() else { break };
            if kept {
                let (identifier, record) = records::reply_keys(message, epoch, &keys);
                self.changes.put(tables::KEYS, &identifier, record);
            }
            if let Some(gone) = self.keyring.insert(message, epoch, keys, kept) {
                self.changes.delete(tables::KEYS, &gone);
            }
            blocks.push(bytes);
        }
        (epoch, blocks)
    }

    fn build_block_ahead(&mut self) -> bool {
        let view = Arc::clone(&self.views.current);
        let Some(end) = self.own_end(&view) else { return false };
        let mixes = view.draw_route(self.builder.rng());
        let (bytes, keys) = self.builder.build_block(&view, &mixes, &end);
        self.ready_blocks.push(AheadBlock { bytes, keys });
        true
    }

    /// Cover that comes back to this client.
    fn build_loop(&mut self) -> (Identifier, Prepared) {
        let drawn = Arc::clone(self.views.draw(self.builder.rng()));
        let (view, end) = match self.own_end(&drawn) {
            Some(end) => (drawn, end),
            // Without a gateway in the current epoch the client is told to end; until then its loops end at any.
            None => {
                let current = Arc::clone(&self.views.current);
                let end = self.own_end(&current);
                let end = end.unwrap_or_else(|| End::Node(current.draw_gateway(self.builder.rng())));
                (current, end)
            }
        };
        let mixes = view.draw_route(self.builder.rng());
        self.build_filler(&view, &mixes, &end)
    }

    fn build_filler(
        &mut self,
        view: &EpochView,
        mixes: &[tombola_topology::NodeIndex],
        end: &End,
    ) -> (Identifier, Prepared) {
        let identifier = self.builder.identifier();
        let filler = self.builder.filler(payload_type::COVER);
        (identifier, self.builder.build(view, FirstLink::FromClient, mixes, end, identifier, &filler))
    }

    /// Its own mailbox as the end of a route.
    fn own_end(&self, view: &EpochView) -> Option<End> {
        let gateway = view.gateway(&self.keys.gateway)?;
        Some(End::Client { gateway, mailbox: self.mailbox, key: self.keys.sphinx.public_key() })
    }

    /// Does what is due.
    pub(super) fn tend(&mut self, now: Time) {
        while let Some(id) = self.outbox.poll_expired(now) {
            self.end(id, FinalState::Expired);
        }
        if self.connected {
            self.outbox.handle_timeouts(now, self.delivery.share());
        }
        // A few at a time: each may need a packet, and a record.
        for _ in 0..LOOKS_AT_ONCE {
            if !self.connected || self.control.len() >= CONTROL_BUSY {
                break;
            }
            let unheard = |id: &MessageId| self.outbox.get(id).is_some();
            let look = self.conversations.poll_look(now, self.pace.round_trip, unheard);
            let Some((message, since)) = look else { break };
            if self.delivery.lost_since(since) {
                self.give(message, 0, BLOCKS_MAX as u16, 0);
            } else {
                self.put_conversation(message);
            }
        }
        while let Some((message, via, report)) = self.inbox.poll_report(now) {
            self.report(now, message, via, report);
        }
        while let Some(message) = self.pools.evict() {
            self.changes.delete_all(tables::BLOCKS, &message.0);
        }
    }

    /// Tells the sender of a message what there is of it, and gives whoever answers new blocks for what is missing.
    pub(super) fn report(&mut self, now: Time, message: MessageId, via: Option<MessageId>, report: Report) {
        if let (Some(own), Report::Partial { open, .. }) = (via, &report) {
            let shape = self.inbox.shape(&message);
            let data = |segment| shape.map_or(1, |shape| shape.data_in(segment));
            let lacks = open.iter().map(|(segment, there)| data(*segment).saturating_sub(there.len()));
            let missing = lacks.sum::<usize>();
            let wanted = u16::try_from(missing + 2).unwrap_or(u16::MAX);
            let (left, since) = self.conversations.get(&own).map_or((0, now), |talk| (talk.left, talk.since));
            let lost = if self.delivery.lost_since(since) { wanted.saturating_sub(left) } else { 0 };
            self.give(own, wanted, lost, SPARE_FOR_LOOKS);
        }
        for _ in 0..self.delivery.copies() {
            self.push_control(Control::Report { message, via, report: report.clone() });
        }
    }

    /// Gives the recipient of an own message more blocks to answer with, as far as its budget goes.
    pub(super) fn supply(&mut self, message: MessageId, wanted: u16) {
        self.give(message, wanted, 0, 0);
    }

    /// Gives the recipient of an own message blocks for such as were lost.
    pub(super) fn make_up(&mut self, message: MessageId, wanted: u16) {
        self.give(message, 0, wanted, SPARE_FOR_LOOKS);
    }

    /// Gives blocks, of which so many count against the budget and so many against what is kept for loss.
    /// Of the latter, `kept` stay.
    fn give(&mut self, message: MessageId, allowed: u16, lost: u16, kept: u16) {
        let Some(conversation) = self.conversations.get_mut(&message) else { return };
        let allowed = allowed.min(conversation.left).min(SUPPLY_MOST);
        let lost = lost.min(conversation.spare.saturating_sub(kept)).min(SUPPLY_MOST - allowed);
        conversation.left -= allowed;
        conversation.spare -= lost;
        self.put_conversation(message);
        let mut count = allowed + lost;
        while count > 0 {
            let packet = count.min(BLOCKS_MAX as u16);
            self.push_control(Control::Supply { message, count: packet });
            count -= packet;
        }
    }
}

fn replies_flag(replies: u16) -> Flags {
    if replies > 0 { Flags::REPLIES } else { Flags::default() }
}
