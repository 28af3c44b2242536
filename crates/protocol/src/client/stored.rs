//! What a client keeps over a restart: how it becomes records, and is made of them again.

use core::time::Duration;
use std::collections::BTreeMap;

use tombola_mixing::Time;

use super::{Client, ClientEvent, NewClientError, Received, day_of};
use crate::fragment::{FRAGMENT_DATA, MessageId, Place, Shape};
use crate::inbox::Taken;
use crate::outbox::{Outgoing, Target};
use crate::records::{self, ConversationRecord, InboxRecord, OutboxRecord, Restore, TargetRecord, tables};
use crate::replyblocks::Conversation;
use crate::view::Recipient;

impl Client {
    pub(super) fn restore(&mut self, now: Time, stored: Restore) -> Result<(), NewClientError> {
        let wrong = |message, problem| NewClientError::Stored { message, problem };
        let Restore { outbox, mut bodies, finals, mut keys, conversations, blocks, .. } = stored;
        for (id, record) in outbox {
            let body: Vec<u8> = bodies.remove(&id).unwrap_or_default().into_values().flatten().collect();
            let shape = Shape::of(body.len())
                .filter(|shape| shape.length() == record.length as usize)
                .ok_or_else(|| wrong(id, "its bytes are not as many as they were"))?;
            let target = match record.target {
                TargetRecord::Reply(to) => Target::Reply(to),
                TargetRecord::Address(address) => Target::Address(Box::new(
                    Recipient::new(&address).map_err(|_| wrong(id, "its address holds an unusable key"))?,
                )),
            };
            // The wall clock may have been set back in the meantime.
            let queued = self.wall.time(record.queued).min(now);
            let longest = self.views.current.parameters().mailbox_retention;
            let expires = self.wall.time(record.expires).min(now + longest);
            let mut outgoing = Outgoing::new(target, body, shape, record.replies, queued, expires);
            outgoing.older = Duration::from_secs(self.wall.seconds(queued).saturating_sub(record.queued));
            outgoing.sent = record.sent;
            outgoing.cursor = record.cursor.min(shape.fragments());
            outgoing.restore_extra(record.extra);
            self.outbox.restore(now, id, outgoing, self.builder.rng());
        }
        for (id, state) in finals {
            self.events.push_back(ClientEvent::Ended(id, state));
        }
        keys.sort_by_key(|(_, epoch, _)| *epoch);
        for (message, epoch, keys) in keys {
            self.keyring.insert(message, epoch, keys, true);
        }
        // What was under way may be lost, and nobody remembers what was before.
        if !conversations.is_empty() {
            self.delivery.interrupted(now);
        }
        for (message, record) in conversations {
            let with = Recipient::new(&record.with)
                .map_err(|_| wrong(message, "its address holds an unusable key"))?;
            let conversation = Conversation {
                with,
                left: record.left,
                spare: record.spare,
                looked: record.looked,
                look_at: self.wall.time(record.look_at),
                since: now,
            };
            self.conversations.insert(message, conversation);
        }
        self.conversations.spread_overdue(now, self.pace.round_trip * 2, self.builder.rng());
        for (message, blocks) in blocks {
            for (number, (epoch, bytes)) in blocks {
                self.pools.restore(message, number, epoch, &bytes);
            }
        }
        self.forget_blocks();
        let day = day_of(self.wall.seconds(now));
        let lives = self.tag_days();
        for (of, fingerprint) in stored.tags {
            if day.saturating_sub(of) <= lives {
                self.seen.restore(fingerprint);
            } else {
                self.changes.delete(tables::TAGS, &records::tag_key(of, fingerprint));
            }
        }
        let mut done: Vec<_> = stored.done.into_iter().collect();
        done.sort_by_key(|(_, taken)| *taken);
        for (message, taken) in done {
            if self.wall.seconds(now).saturating_sub(taken) / 86_400 <= u64::from(lives) {
                self.inbox.restore_done(message);
            } else {
                self.changes.delete(tables::DONE, &message.0);
            }
        }
        self.restore_inbox(now, stored.inbox, stored.partial, stored.fragments, stored.segments)
    }

    fn restore_inbox(
        &mut self,
        now: Time,
        inbox: BTreeMap<MessageId, InboxRecord>,
        partial: BTreeMap<MessageId, (Shape, Option<MessageId>)>,
        mut fragments: BTreeMap<MessageId, BTreeMap<Place, Vec<u8>>>,
        mut segments: BTreeMap<MessageId, BTreeMap<u16, Vec<u8>>>,
    ) -> Result<(), NewClientError> {
        let wrong = |message, problem| NewClientError::Stored { message, problem };
        let mut whole: Vec<_> = inbox.into_iter().collect();
        whole.sort_by_key(|(_, record)| record.received_ns);
        for (message, record) in whole {
            let body: Vec<u8> =
                segments.remove(&message).unwrap_or_default().into_values().flatten().collect();
            if body.len() != record.length as usize {
                return Err(wrong(message, "its bytes are not as many as have arrived"));
            }
            self.inbox.restore_waiting(message);
            self.events.push_back(ClientEvent::Received(Received::new(message, &record, body, true)));
        }
        for (message, (shape, via)) in partial {
            for (segment, bytes) in segments.remove(&message).unwrap_or_default() {
                if !self.inbox.restore_segment(now, message, shape, via, segment, bytes) {
                    return Err(wrong(message, "one of its segments does not fit"));
                }
            }
            for (place, data) in fragments.remove(&message).unwrap_or_default() {
                let data: [u8; FRAGMENT_DATA] =
                    data.try_into().map_err(|_| wrong(message, "one of its fragments is cut short"))?;
                if !shape.contains(place) {
                    return Err(wrong(message, "one of its fragments has no place in it"));
                }
                // A segment was made of its last fragment in one group with it, so that none is whole by this.
                let taken = self.inbox.fragment(now, message, shape, place, &data, via, &mut self.changes);
                if matches!(taken, Taken::Whole(_)) {
                    return Err(wrong(message, "it is whole, but not in the inbox"));
                }
            }
        }
        Ok(())
    }

    pub(super) fn put_outgoing(&mut self, id: MessageId) {
        let Some(outgoing) = self.outbox.get(&id) else { return };
        let target = match &outgoing.target {
            Target::Address(to) => TargetRecord::Address(to.address),
            Target::Reply(to) => TargetRecord::Reply(*to),
        };
        let record = OutboxRecord {
            target,
            length: u32::try_from(outgoing.body.len()).unwrap_or(u32::MAX),
            replies: outgoing.replies,
            queued: self.wall.seconds(outgoing.queued).saturating_sub(outgoing.older.as_secs()),
            expires: self.wall.seconds(outgoing.expires),
            sent: outgoing.sent,
            cursor: outgoing.cursor,
            extra: if outgoing.is_short() { outgoing.tries() } else { outgoing.extra },
        };
        self.changes.put(tables::OUTBOX, &id.0, record.to_bytes());
    }

    pub(super) fn put_conversation(&mut self, id: MessageId) {
        let Some(conversation) = self.conversations.get(&id) else { return };
        let record = ConversationRecord {
            with: conversation.with.address,
            left: conversation.left,
            spare: conversation.spare,
            looked: conversation.looked,
            look_at: self.wall.seconds(conversation.look_at),
        };
        self.changes.put(tables::CONVERSATIONS, &id.0, record.to_bytes());
    }
}
