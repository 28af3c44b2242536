//! Links that come and go, and what is agreed on them.

use std::collections::{BTreeMap, BTreeSet};

use tombola_mixing::Time;
use tombola_tickets::{AccountProof, Address, ClassNumber, Neighbour, Now, Restore, session_offset};
use tombola_topology::{IdentityKey, Role};

use super::link::Link;
use super::machines::{Earning, Paying};
use super::{EpochPrices, PaymentOutput, Payments, Side, Signs, Terms, terms_of};
use crate::frame::Parity;
use crate::view::OpenViews;

impl Payments {
    /// Says what is agreed with a neighbour for packets of the epoch of that parity; `None`: nothing any more.
    pub fn set_terms(
        &mut self,
        now: Time,
        peer: IdentityKey,
        side: Side,
        parity: Parity,
        terms: Option<Terms>,
    ) {
        let terms = terms
            .filter(|terms| self.prices.contains_key(&terms.class) && self.is_free_for(&peer, side, terms));
        let link = self.link(peer);
        let (number, paced) = (link.number, link.paced);
        if let Some(terms) = terms {
            match side {
                Side::Paying => self.pay(terms, &Restore::default()),
                // Of a client's machine there is one when there is something to hear: anybody can show an account.
                Side::Earning if paced => {}
                Side::Earning => self.earn(self.now(now), terms, number, &Restore::default()),
            }
        }
        let link = self.link(peer);
        let before = core::mem::replace(&mut link.terms_mut(side)[parity.index()], terms);
        let used: BTreeSet<_> = link.terms(side).iter().flatten().map(|terms| terms.account).collect();
        let (up, session) = (link.up, link.session);
        if before == terms {
            return;
        }
        if let Some(before) = before.filter(|before| !used.contains(&before.account)) {
            self.users.remove(&(side, before.account));
        }
        self.users.extend(used.into_iter().map(|account| ((side, account), peer)));
        self.set_room(now, &peer);
        if let Some(before) = before {
            self.machines.disconnected(side, &before);
        }
        if let (Some(terms), Side::Paying, true) = (terms, side, up) {
            self.resume(&terms, session);
            let link = self.link(peer);
            link.resuming = true;
            link.slots.hurry();
        }
        self.hear_early(now);
    }

    /// The epochs whose packets are taken have changed: so has what is agreed with neighbours, and with clients.
    pub fn handle_views(&mut self, now: Time, views: &OpenViews) {
        self.views = views.clone();
        for parity in [Parity::of(0), Parity::of(1)] {
            let seat = views.get(parity);
            let agreed: BTreeMap<_, _> = seat
                .map(terms_of)
                .unwrap_or_default()
                .into_iter()
                .map(|(peer, side, terms)| ((peer, side), terms))
                .collect();
            let mut known: BTreeSet<_> =
                self.links.iter().filter(|(_, link)| !link.paced).map(|(peer, _)| *peer).collect();
            known.extend(agreed.keys().map(|(peer, _)| *peer));
            for peer in known {
                for side in [Side::Paying, Side::Earning] {
                    self.set_terms(now, peer, side, parity, agreed.get(&(peer, side)).copied());
                }
            }
            let is_gateway = seat.is_some_and(|seat| matches!(seat.role(), Role::Gateway));
            let class = seat.filter(|_| is_gateway).and_then(|seat| EpochPrices::of(seat.view())?.client());
            self.set_client_class(now, parity, class);
        }
    }

    /// An account is paid from, and pays, on one link only.
    pub(super) fn is_free_for(&self, peer: &IdentityKey, side: Side, terms: &Terms) -> bool {
        self.users.get(&(side, terms.account)).is_none_or(|user| user == peer)
    }

    pub(super) fn link(&mut self, peer: IdentityKey) -> &mut Link {
        let next_number = &mut self.next_number;
        self.links.entry(peer).or_insert_with(|| {
            *next_number = next_number.wrapping_add(1);
            Link::new(*next_number)
        })
    }

    /// Which classes clients pay in the epoch of that parity.
    pub fn set_client_class(&mut self, now: Time, parity: Parity, class: Option<ClassNumber>) {
        self.client_classes[parity.index()] = class;
        let clients: Vec<_> =
            self.links.iter().filter(|(_, link)| link.paced).map(|(peer, _)| *peer).collect();
        clients.into_iter().for_each(|client| self.admit(now, client));
    }

    /// A client's link is up: it has not said yet from which account it pays.
    pub fn open_client(&mut self, now: Time, client: IdentityKey) {
        let link = self.link(client);
        link.paced = true;
        let before = link.claims.take();
        self.forget_claims(before);
        self.handle_link(now, client, true);
        self.link(client).slots.calm();
    }

    /// The gateway's link of a client is up: it is shown from which account we pay.
    pub fn open_gateway(&mut self, now: Time, gateway: IdentityKey) {
        let (account, domain) = (&self.account, &self.account.domain);
        let ends = (gateway.as_bytes(), self.me.as_bytes());
        let proof = AccountProof::new(account.address, &account.signer, domain, ends.0, ends.1);
        let link = self.link(gateway);
        link.paced = true;
        link.proof = Some(proof);
        link.shows = true;
        self.handle_link(now, gateway, true);
    }

    /// A client shows from which account it pays.
    pub(super) fn show(&mut self, now: Time, client: IdentityKey, proof: &AccountProof) -> bool {
        let Some(link) = self.links.get_mut(&client).filter(|link| link.paced) else { return false };
        if let Some((account, _)) = link.claims {
            // It says so again when it cannot know that it was heard.
            return account == proof.account;
        }
        let signer = proof.signer(&self.account.domain, self.me.as_bytes(), client.as_bytes());
        let Ok(signer) = signer else { return false };
        link.claims = Some((proof.account, signer));
        self.out.push_back(PaymentOutput::Watch { account: proof.account, signer });
        self.admit(now, client);
        true
    }

    /// Agrees on terms with a client that has shown its account, if the key that it showed signs for that account.
    pub(super) fn admit(&mut self, now: Time, client: IdentityKey) {
        let Some((account, signer)) = self.links.get(&client).and_then(|link| link.claims) else { return };
        let signs = match signer == account {
            true => Signs::All,
            false => {
                self.signers.get(&account).and_then(|all| all.get(&signer)).copied().unwrap_or(Signs::Nothing)
            }
        };
        for (at, parity) in [(0, Parity::of(0)), (1, Parity::of(1))] {
            let class = self.client_classes[at];
            let price = class.and_then(|class| self.prices.get(&class));
            let class = class.filter(|_| price.is_some_and(|price| signs.covers(price)));
            self.set_terms(now, client, Side::Earning, parity, class.map(|class| Terms { account, class }));
        }
    }

    /// A link came up or went down.
    pub fn handle_link(&mut self, now: Time, peer: IdentityKey, up: bool) {
        let unix = self.now(now).unix.0;
        self.link(peer);
        let Some(link) = self.links.get_mut(&peer) else { return };
        let changed = core::mem::replace(&mut link.up, up);
        if up && !link.paced {
            self.neighbours.insert(peer);
        }
        let (paying, earning) = (link.paying, link.earning);
        if up {
            let offset = session_offset(&self.account.secret, peer.as_bytes());
            let session = link.begin_session(unix.saturating_add(offset), &mut self.rng);
            link.resuming = paying.iter().any(Option::is_some);
            for terms in paying.iter().flatten() {
                self.resume(terms, session);
            }
        } else if changed {
            for (side, all) in [(Side::Paying, paying), (Side::Earning, earning)] {
                all.iter().flatten().for_each(|terms| self.machines.disconnected(side, terms));
            }
        }
        self.set_room(now, &peer);
    }

    /// A link of a client is gone, and with it what it pays from.
    pub fn close_client(&mut self, now: Time, client: IdentityKey) {
        self.handle_link(now, client, false);
        let Some(link) = self.links.remove(&client) else { return };
        for side in [Side::Paying, Side::Earning] {
            for terms in link.terms(side).iter().flatten() {
                self.users.remove(&(side, terms.account));
            }
        }
        self.forget_claims(link.claims);
        // What it has shown may be somebody else's; what was agreed on with it is its own, and on no other link.
        let accounts: BTreeSet<_> =
            link.terms(Side::Earning).iter().flatten().map(|terms| terms.account).collect();
        for account in &accounts {
            self.machines.leave(account, &mut self.books);
        }
        for account in accounts.into_iter().chain(link.claims.map(|(account, _)| account)) {
            if self.machines.of_account(&account).next().is_none() {
                self.books.forget_credit(&account);
            }
        }
    }

    /// What a client has shown matters no more, unless another one shows the same.
    fn forget_claims(&mut self, claims: Option<(Address, Address)>) {
        if let Some((account, signer)) = claims
            && !self.links.values().any(|link| link.claims == claims)
        {
            self.out.push_back(PaymentOutput::Forget { account, signer });
        }
    }

    /// Something was lost on a link that is up, or the lists differ: both ends agree again.
    pub(super) fn agree_again(&mut self, peer: &IdentityKey, terms: &Terms) {
        let Some(link) = self.links.get_mut(peer) else { return };
        let session = link.begin_again(&mut self.rng);
        link.resuming = true;
        link.shows = link.proof.is_some();
        self.resume(terms, session);
    }

    /// Where nothing is heard any more, both ends agree again.
    pub(super) fn agree_where_stuck(&mut self, at: Now) {
        let paying = self.machines.paying.iter_mut();
        let stuck = paying.filter_map(|(terms, paying)| paying.issuer.wants_resume(at).then_some(*terms));
        let stuck: Vec<_> = stuck.collect();
        for terms in stuck {
            let mut links =
                self.links.iter().filter(|(_, link)| link.up && link.paying.contains(&Some(terms)));
            if let Some(peer) = links.next().map(|(peer, _)| *peer) {
                self.agree_again(&peer, &terms);
            }
        }
    }

    pub(super) fn resume(&mut self, terms: &Terms, session: u32) {
        if let Some(paying) = self.machines.paying.get_mut(terms) {
            paying.issuer.resume(session.into(), &self.books);
        }
    }

    /// The paying machine, if there is a price; made anew if there is none.
    pub(super) fn pay(&mut self, terms: Terms, kept: &Restore) {
        if let Some(price) = self.prices.get(&terms.class) {
            let (account, books) = (&self.account, &mut self.books);
            self.machines
                .paying
                .entry(terms)
                .or_insert_with(|| Paying::new(account, terms, *price, kept, books));
        }
    }

    pub(super) fn earn(&mut self, at: Now, terms: Terms, previous: Neighbour, kept: &Restore) {
        let Some(price) = self.prices.get(&terms.class).copied() else { return };
        let (account, books, limits) = (&self.account, &mut self.books, self.limits);
        self.machines.earning.entry(terms).or_insert_with(|| {
            let mut earning = Earning::new(account, terms, price, previous, limits, kept, at, books);
            if let Some(signers) = self.signers.get(&terms.account) {
                earning.set_signers(terms.account, signers);
            }
            earning
        });
    }
}
