//! A million tickets each: nobody, and no pair that does not contain both issuer and recipient, moves the win rate out of
//! the interval in which an honest one is found 999 times of 1000.
//!
//! Each cheat chooses what is its to choose, the best of several by what it knows, and guesses what it does not. That the
//! tests would notice is shown by the pair that is left out: who knows salt and randomness wins at will.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure must stop the test")]

use tombola_mixing::Rng;
use tombola_tickets::{
    Address, BatchHeader, ClassNumber, Digest, Domain, Opener, Randomness, Root, Salt, TicketCount,
    WinProbability, WindowNumber, wins,
};

const TICKETS: u32 = 1_000_000;
const BATCH: usize = 250;
const BATCHES_OF_A_WINDOW: u32 = 20;
const P: WinProbability = WinProbability::MAX;
/// How many of its values a cheat tries.
const TRIES: usize = 4;

/// Who cheats.
#[derive(Clone, Copy, Default)]
struct Cheats {
    issuer: bool,
    recipient: bool,
    sender: bool,
}

struct Game {
    rng: Rng,
    domain: Domain,
    cheats: Cheats,
}

fn count(digest: &Digest, openers: &[Opener], r: &Randomness) -> usize {
    let won = |(k, opener): (usize, &Opener)| wins(digest, u8::try_from(k).unwrap(), opener, r, P);
    openers.iter().enumerate().filter(|ticket| won(*ticket)).count()
}

impl Game {
    fn short(&mut self) -> [u8; 16] {
        *self.rng.seed().first_chunk().unwrap()
    }

    fn digest(&mut self, window: u32, number: u8, r: &Randomness) -> Digest {
        BatchHeader {
            issuer: Address::repeat_byte(1),
            recipient: Address::repeat_byte(2),
            class: ClassNumber(1),
            window: WindowNumber(window),
            number,
            count: TicketCount::new(BATCH).unwrap(),
            commitment: r.commitment(),
            root: Root::from_bytes([3; 20]),
            salt: Salt::from_bytes(self.short()),
        }
        .digest(&self.domain)
    }

    /// Each ticket's opener. A cheating sender takes the one that wins by what it knows, or, with the issuer, that loses.
    fn openers(&mut self, digest: &Digest, r: &Randomness, wants_wins: bool) -> Vec<Opener> {
        let mut choose = |k: usize| {
            let mut opener = Opener::from_bytes(self.short());
            if self.cheats.sender {
                for _ in 1..TRIES {
                    if wins(digest, u8::try_from(k).unwrap(), &opener, r, P) == wants_wins {
                        break;
                    }
                    opener = Opener::from_bytes(self.short());
                }
            }
            opener
        };
        (0..BATCH).map(&mut choose).collect()
    }

    /// Winners of a million tickets, and how many tickets there were.
    fn play(mut self, issuer_knows_r: bool) -> (u32, u32) {
        let Cheats { issuer, recipient, .. } = self.cheats;
        let (mut won, mut tickets, mut window) = (0, 0, 0);
        while tickets < TICKETS {
            window += 1;
            let guess = Randomness::from_bytes(self.short());
            // What the sender will send, if the recipient is told: by guessed digests, with the randomness that is chosen
            // for it.
            let mut r = Randomness::from_bytes(self.short());
            let mut told = None;
            if recipient {
                let guessed = self.digest(window, 0, &r);
                let openers = self.openers(&guessed, &r, true);
                let others: Vec<_> = (1..TRIES).map(|_| Randomness::from_bytes(self.short())).collect();
                r = others.into_iter().chain([r]).max_by_key(|r| count(&guessed, &openers, r)).unwrap();
                told = Some((guessed, openers));
            }
            let known = if issuer_knows_r { r.clone() } else { guess };
            for number in 0..BATCHES_OF_A_WINDOW {
                let number = u8::try_from(number).unwrap();
                let openers = match (&told, number) {
                    (Some((_, openers)), 0) => openers.clone(),
                    (Some((guessed, _)), _) => self.openers(&guessed.clone(), &r, true),
                    // The issuer's salt is known to a sender that is its accomplice, and guessed by another one.
                    _ => {
                        let digest = self.digest(window, number, &r);
                        self.openers(&digest, &known, !issuer)
                    }
                };
                let mut digest = self.digest(window, number, &r);
                if issuer {
                    let others: Vec<_> = (1..TRIES).map(|_| self.digest(window, number, &r)).collect();
                    let all = others.into_iter().chain([digest]);
                    digest = all.min_by_key(|digest| count(digest, &openers, &known)).unwrap();
                }
                won += u32::try_from(count(&digest, &openers, &r)).unwrap();
                tickets += u32::try_from(BATCH).unwrap();
            }
        }
        (won, tickets)
    }
}

fn deviation(seed: u8, cheats: Cheats, issuer_knows_r: bool) -> f64 {
    let game =
        Game { rng: Rng::from_seed([seed; 32]), domain: Domain::new(1, Address::repeat_byte(9)), cheats };
    let (won, tickets) = game.play(issuer_knows_r);
    let p = P.as_f64();
    (f64::from(won) - p * f64::from(tickets)) / (f64::from(tickets) * p * (1.0 - p)).sqrt()
}

/// 999 of 1000 normal numbers are nearer to 0 than this.
const INTERVAL: f64 = 3.29;

fn stays(seed: u8, cheats: Cheats) {
    let found = deviation(seed, cheats, false);
    assert!(found.abs() < INTERVAL, "{found} standard deviations");
}

const HONEST: Cheats = Cheats { issuer: false, recipient: false, sender: false };

#[test]
fn honest_tickets_win_as_often_as_the_class_says() {
    stays(1, HONEST);
}

#[test]
fn an_issuer_that_chooses_salts_wins_nothing() {
    stays(2, Cheats { issuer: true, ..HONEST });
}

#[test]
fn a_recipient_that_chooses_its_randomness_wins_nothing() {
    stays(3, Cheats { recipient: true, ..HONEST });
}

#[test]
fn a_sender_that_chooses_openers_wins_nothing() {
    stays(4, Cheats { sender: true, ..HONEST });
}

#[test]
fn issuer_and_sender_together_win_nothing() {
    stays(5, Cheats { issuer: true, sender: true, ..HONEST });
}

#[test]
fn recipient_and_sender_together_win_nothing() {
    stays(6, Cheats { recipient: true, sender: true, ..HONEST });
}

#[test]
fn an_issuer_that_knows_the_randomness_would_be_noticed() {
    let found = deviation(7, Cheats { issuer: true, ..HONEST }, true);
    assert!(found < -10.0 * INTERVAL, "{found} standard deviations");
}
