//! What was sent by whom to whom, what came of it, and whether that is what was promised: everything that a client
//! accepted arrives at the recipient's application once, whoever is killed meanwhile.
//!
//! The book is kept from the lines of the clients alone. A process that is killed takes lines with it, so the book knows
//! what it cannot know: a message whose `queued` was not read may have been accepted or not, and arrives once or never; an
//! acknowledgement that came in the same moment may never be told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A message counts as taken when the client was told so and lived on for this long. In between it may come again.
const TAKEN_AFTER: Duration = Duration::from_secs(10);

/// What a message says. No two are alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    Text(String),
    /// A file, by its digest.
    File {
        sha256: String,
        bytes: usize,
    },
}

/// One arrival at an application.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    /// Which process of the recipient printed it, counted from 0.
    life: usize,
    at: Duration,
}

/// One message.
#[derive(Clone, Debug)]
struct Letter {
    from: usize,
    /// Which process of the sender was told to send it.
    life: usize,
    to: usize,
    content: Content,
    /// From `queued`.
    id: Option<String>,
    /// The letter that it answers.
    answers: Option<usize>,
    arrivals: Vec<Arrival>,
}

/// One client.
#[derive(Clone, Debug, Default)]
struct Party {
    address: String,
    /// When each of its processes was killed.
    deaths: Vec<Duration>,
    /// It has asked for nothing more to be sent for a while.
    full: bool,
}

/// What a client shall be told because of what it said.
#[derive(Debug, PartialEq, Eq)]
pub struct Order(pub Value);

/// Counts of everything that happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Messages whose `queued` was read, replies and files included.
    pub messages: u64,
    pub replies: u64,
    pub files: u64,
    /// Messages that came again after a kill, marked as such.
    pub again: u64,
    /// Packets that were sent again.
    pub retransmissions: u64,
    /// Messages that arrived, and whose sender was killed when it should have been told.
    pub unconfirmed: u64,
    /// Messages that were told to a client which was killed before it answered.
    pub unanswered: u64,
}

/// The book.
#[derive(Debug)]
pub struct Book {
    parties: Vec<Party>,
    letters: Vec<Letter>,
    by_id: BTreeMap<String, usize>,
    /// Who was told of which message that it arrived.
    acknowledged: BTreeSet<(usize, String)>,
    /// Messages of which everything has left once.
    sent: BTreeSet<String>,
    again: u64,
    retransmissions: u64,
    wrong: Vec<String>,
}

impl Book {
    /// A book for clients with these addresses.
    pub fn new(addresses: impl IntoIterator<Item = String>) -> Self {
        let parties = addresses.into_iter().map(|address| Party { address, ..Party::default() }).collect();
        Self {
            parties,
            letters: Vec::new(),
            by_id: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            sent: BTreeSet::new(),
            again: 0,
            retransmissions: 0,
            wrong: Vec::new(),
        }
    }

    /// A text to be sent, with a budget of replies.
    pub fn text(&mut self, from: usize, to: usize, replies: u32) -> Order {
        let text = format!("letter {} from {from} to {to}", self.letters.len());
        let mut send = json!({ "to": self.parties[to].address, "text": text, "expires": "1d" });
        if replies > 0 {
            send["replies"] = json!(replies);
        }
        send["tag"] = json!(self.enter(from, to, Content::Text(text), None));
        Order(json!({ "send": send }))
    }

    /// A file to be sent, whose bytes are at `path`.
    pub fn file(&mut self, from: usize, to: usize, path: &str, bytes: &[u8]) -> Order {
        let content = Content::File { sha256: hex::encode(Sha256::digest(bytes)), bytes: bytes.len() };
        let tag = self.enter(from, to, content, None);
        Order(
            json!({ "send": { "to": self.parties[to].address, "file": path, "tag": tag, "expires": "1d" } }),
        )
    }

    /// Whether a client can be told to send something: it keeps up with what it was told.
    pub fn may_send(&self, from: usize) -> bool {
        let life = self.parties[from].deaths.len();
        let waiting = |letter: &&Letter| letter.from == from && letter.life == life && letter.id.is_none();
        !self.parties[from].full && self.letters.iter().filter(waiting).count() < 16
    }

    /// A client was killed. Its last lines must have been [taken](Self::take).
    pub fn died(&mut self, party: usize, at: Duration) {
        self.parties[party].deaths.push(at);
        self.parties[party].full = false;
    }

    /// Takes a line of a client; what to tell it because of that.
    pub fn take(&mut self, party: usize, at: Duration, line: &str) -> Vec<Order> {
        // A process that is killed may leave half a line behind.
        let Ok(event) = serde_json::from_str::<Value>(line) else { return Vec::new() };
        let id = event["id"].as_str().unwrap_or_default().to_owned();
        match event["event"].as_str() {
            Some("queued") => self.queued(party, id, event["tag"].as_str().unwrap_or_default()),
            Some("emitted") if event["attempt"].as_u64().unwrap_or_default() > 0 => self.retransmissions += 1,
            Some("acknowledged") => drop(self.acknowledged.insert((party, id))),
            Some("sent") => drop(self.sent.insert(id)),
            Some("received") => return self.received(party, at, &id, &event),
            Some("backpressure") => self.parties[party].full = event["on"] == true,
            Some("expired" | "cancelled" | "unreadable" | "error") => {
                self.wrong.push(format!("client {party}: {line}"));
            }
            _ => {}
        }
        Vec::new()
    }

    fn enter(&mut self, from: usize, to: usize, content: Content, answers: Option<usize>) -> String {
        let life = self.parties[from].deaths.len();
        let (id, arrivals) = (None, Vec::new());
        self.letters.push(Letter { from, life, to, content, id, answers, arrivals });
        (self.letters.len() - 1).to_string()
    }

    fn queued(&mut self, party: usize, id: String, tag: &str) {
        let place =
            tag.parse().ok().filter(|&n: &usize| self.letters.get(n).is_some_and(|l| l.from == party));
        let Some(place) = place else {
            return self.wrong.push(format!("client {party} has queued {id}, which nobody told it to send"));
        };
        let known = self.by_id.insert(id.clone(), place);
        let before = self.letters[place].id.replace(id.clone());
        if before.is_some_and(|before| before != id) || known.is_some_and(|known| known != place) {
            self.wrong.push(format!("letter {place} and {id} were taken for one another"));
        }
    }

    fn received(&mut self, party: usize, at: Duration, id: &str, event: &Value) -> Vec<Order> {
        let content = match (event["text"].as_str(), event["sha256"].as_str()) {
            (Some(text), None) => Content::Text(text.to_owned()),
            (None, Some(sha256)) => Content::File {
                sha256: sha256.to_owned(),
                bytes: event["bytes"].as_u64().unwrap_or_default() as usize,
            },
            _ => return self.stray(party, event),
        };
        // The content itself says which one it is: an id could be right and its content another's.
        let Some(place) = self.letters.iter().position(|letter| letter.content == content) else {
            return self.stray(party, event);
        };
        if event["error"].is_string() {
            self.wrong.push(format!("client {party}: a file could not be saved: {event}"));
        }
        let life = self.parties[party].deaths.len();
        let letter = &self.letters[place];
        if letter.to != party {
            self.wrong.push(format!("letter {place} came to client {party}"));
        }
        if self.by_id.insert(id.to_owned(), place).is_some_and(|known| known != place)
            || letter.id.as_ref().is_some_and(|known| known != id)
        {
            self.wrong.push(format!("letter {place} arrived as {id}, which is another"));
        }
        let asked = letter.answers.map(|asked| self.letters[asked].id.clone());
        if let Some(asked) = asked
            && asked.as_deref() != event["reply_to"].as_str()
        {
            self.wrong.push(format!(
                "letter {place} answers {asked:?}, and came as an answer to {}",
                event["reply_to"]
            ));
        }
        let again = event["again"] == true;
        let wrong = match letter.arrivals.last() {
            None => (again && life == 0).then_some("came again before it came"),
            Some(_) if !again => Some("came twice"),
            Some(last) if last.life == life => Some("came twice to one process"),
            // Told at once that it was taken.
            Some(_) => letter
                .arrivals
                .iter()
                .any(|arrival| {
                    let death = self.parties[party].deaths.get(arrival.life);
                    death.is_some_and(|&death| death.saturating_sub(arrival.at) > TAKEN_AFTER)
                })
                .then_some("came again long after it had been taken"),
        };
        if let Some(wrong) = wrong {
            let earlier = &letter.arrivals;
            self.wrong
                .push(format!("letter {place} {wrong}: {earlier:?}, now {at:?} in life {life}: {event}"));
        }
        let first = letter.arrivals.is_empty();
        self.letters[place].arrivals.push(Arrival { life, at });
        self.again += u64::from(!first);
        let mut orders = Vec::new();
        if first && event["replies"] == true {
            let text = format!("answer to letter {place}");
            let tag = self.enter(party, self.letters[place].from, Content::Text(text.clone()), Some(place));
            orders.push(Order(json!({ "reply": { "id": id, "text": text, "tag": tag } })));
        }
        orders.push(Order(json!({ "accept": { "id": id } })));
        orders
    }

    fn stray(&mut self, party: usize, event: &Value) -> Vec<Order> {
        self.wrong.push(format!("client {party} got what nobody sent: {event}"));
        Vec::new()
    }

    /// Letters that were accepted and have not got where they should be, each with what is missing.
    pub fn open(&self) -> Vec<String> {
        let mut open = Vec::new();
        for (place, letter) in self.letters.iter().enumerate() {
            let Letter { from, to, .. } = letter;
            if letter.id.is_none() {
                // Whoever lives still owes an answer.
                if letter.life == self.parties[*from].deaths.len() {
                    open.push(format!("letter {place} from {from} to {to} is neither queued nor refused"));
                }
            } else if letter.arrivals.is_empty() {
                open.push(format!("letter {place} from {from} to {to} has not arrived"));
            } else if !self.is_acknowledged(letter) && !self.is_excused(letter) {
                open.push(format!("letter {place} from {from} to {to} is not acknowledged"));
            }
        }
        open
    }

    fn is_acknowledged(&self, letter: &Letter) -> bool {
        letter.id.clone().is_some_and(|id| self.acknowledged.contains(&(letter.from, id)))
    }

    /// The sender was killed when or after the letter arrived: the line with the acknowledgement may be gone.
    fn is_excused(&self, letter: &Letter) -> bool {
        let (first, death) = (letter.arrivals.first(), self.parties[letter.from].deaths.last());
        // The arrival was read later than it happened: much later by a test that has to wait for a processor.
        first.zip(death).is_some_and(|(first, &death)| death + Duration::from_secs(10) >= first.at)
    }

    /// Letters that were accepted and have not arrived.
    pub fn missing(&self) -> usize {
        self.letters.iter().filter(|letter| letter.id.is_some() && letter.arrivals.is_empty()).count()
    }

    /// Letters that have arrived.
    pub fn arrived(&self) -> usize {
        self.letters.iter().filter(|letter| !letter.arrivals.is_empty()).count()
    }

    /// Whether everything of every letter that was accepted has left its sender once.
    pub fn all_sent(&self) -> bool {
        let mut ids = self.letters.iter().map(|letter| letter.id.as_ref());
        ids.all(|id| id.is_some_and(|id| self.sent.contains(id)))
    }

    /// Everything that is not as promised, whatever the future brings.
    pub fn wrong(&self) -> &[String] {
        &self.wrong
    }

    /// What is not as promised at the end.
    pub fn verdict(&self) -> Vec<String> {
        let mut wrong = self.wrong.clone();
        wrong.extend(self.open());
        for (party, id) in &self.acknowledged {
            let letter = self.by_id.get(id).map(|&place| &self.letters[place]);
            if !letter.is_some_and(|letter| letter.from == *party && !letter.arrivals.is_empty()) {
                wrong.push(format!("client {party} was told that {id} has arrived, and it has not"));
            }
        }
        wrong
    }

    /// Counts so far.
    pub fn totals(&self) -> Totals {
        let queued = || self.letters.iter().filter(|letter| letter.id.is_some());
        Totals {
            messages: queued().count() as u64,
            replies: queued().filter(|letter| letter.answers.is_some()).count() as u64,
            files: queued().filter(|letter| matches!(letter.content, Content::File { .. })).count() as u64,
            again: self.again,
            retransmissions: self.retransmissions,
            unconfirmed: queued().filter(|l| !self.is_acknowledged(l) && self.is_excused(l)).count() as u64,
            unanswered: self.letters.iter().filter(|letter| letter.id.is_none()).count() as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book() -> Book {
        Book::new(["a".to_owned(), "b".to_owned()])
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn say(book: &mut Book, party: usize, at: u64, event: &Value) -> Vec<Order> {
        book.take(party, seconds(at), &event.to_string())
    }

    fn queued(place: usize) -> Value {
        json!({ "event": "queued", "id": format!("id{place}"), "tag": place.to_string() })
    }

    fn acknowledged(place: usize) -> Value {
        json!({ "event": "acknowledged", "id": format!("id{place}") })
    }

    fn received(book: &Book, place: usize, again: bool) -> Value {
        let letter = &book.letters[place];
        let Content::Text(text) = &letter.content else { panic!("a text") };
        let reply_to = letter.answers.map(|n| format!("id{n}"));
        json!({ "event": "received", "id": format!("id{place}"), "text": text, "again": again,
                "replies": false, "reply_to": reply_to })
    }

    /// A letter from 0 to 1 that was queued.
    fn one() -> Book {
        let mut book = book();
        book.text(0, 1, 0);
        say(&mut book, 0, 1, &queued(0));
        book
    }

    #[test]
    fn a_letter_that_arrives_and_is_acknowledged_is_as_promised() {
        let mut book = book();
        let Order(order) = book.text(0, 1, 0);
        assert_eq!((&order["send"]["to"], &order["send"]["tag"]), (&json!("b"), &json!("0")));
        assert_eq!(book.open().len(), 1, "it is owed an answer");
        say(&mut book, 0, 1, &queued(0));
        assert!(book.open()[0].contains("has not arrived"));
        let event = received(&book, 0, false);
        assert_eq!(say(&mut book, 1, 2, &event), [Order(json!({ "accept": { "id": "id0" } }))]);
        assert!(book.open()[0].contains("not acknowledged"));
        say(&mut book, 0, 3, &acknowledged(0));
        assert_eq!(book.verdict(), Vec::<String>::new());
        assert_eq!(book.totals(), Totals { messages: 1, ..Totals::default() });
    }

    #[test]
    fn an_answer_is_a_letter_of_its_own() {
        let mut book = book();
        assert_eq!(book.text(0, 1, 3).0["send"]["replies"], 3);
        say(&mut book, 0, 1, &queued(0));
        let mut event = received(&book, 0, false);
        event["replies"] = json!(true);
        let orders = say(&mut book, 1, 2, &event);
        assert_eq!((&orders[0].0["reply"]["id"], &orders[0].0["reply"]["tag"]), (&json!("id0"), &json!("1")));
        assert_eq!(orders.len(), 2, "{orders:?}");
        say(&mut book, 1, 3, &queued(1));
        let event = received(&book, 1, false);
        assert_eq!(say(&mut book, 0, 3, &event).len(), 1);
        for (party, place) in [(0, 0), (1, 1)] {
            say(&mut book, party, 4, &acknowledged(place));
        }
        assert_eq!(book.verdict(), Vec::<String>::new());
        assert_eq!(book.totals().replies, 1);
    }

    #[test]
    fn a_letter_that_is_lost_doubled_or_astray_is_found() {
        let mut lost = one();
        assert_eq!(lost.verdict().len(), 1);
        say(&mut lost, 0, 2, &acknowledged(0));
        assert!(lost.verdict().iter().any(|wrong| wrong.contains("was told that id0 has arrived")));

        let mut doubled = one();
        let event = received(&doubled, 0, false);
        say(&mut doubled, 1, 2, &event);
        assert!(doubled.wrong().is_empty());
        say(&mut doubled, 1, 3, &event);
        assert!(doubled.wrong()[0].contains("came twice"), "{:?}", doubled.wrong());

        let mut astray = one();
        let event = received(&astray, 0, false);
        say(&mut astray, 0, 2, &event);
        assert!(astray.wrong()[0].contains("came to client 0"));
        say(&mut astray, 1, 2, &json!({ "event": "received", "id": "x", "text": "made up" }));
        assert!(astray.wrong()[1].contains("nobody sent"));
        for event in ["expired", "cancelled", "error", "unreadable"] {
            let before = astray.wrong().len();
            say(&mut astray, 0, 3, &json!({ "event": event, "id": "id0" }));
            assert_eq!(astray.wrong().len(), before + 1, "{event}");
        }
    }

    #[test]
    fn a_letter_may_come_again_after_a_kill_unless_it_was_taken_long_before() {
        for (death, fine) in [(3, true), (30, false)] {
            let mut book = one();
            let first = received(&book, 0, false);
            say(&mut book, 1, 2, &first);
            book.died(1, seconds(death));
            let second = received(&book, 0, true);
            // Told again that it was taken; whoever asked for an answer got one already.
            assert_eq!(say(&mut book, 1, death + 1, &second), [Order(json!({ "accept": { "id": "id0" } }))]);
            assert_eq!(book.wrong().is_empty(), fine, "{:?}", book.wrong());
            // Not to one process, and not without saying so.
            let before = book.wrong().len();
            say(&mut book, 1, death + 2, &second);
            assert_eq!(book.wrong().len(), before + 1);
        }
        let mut book = one();
        let first = received(&book, 0, false);
        say(&mut book, 1, 2, &first);
        book.died(1, seconds(3));
        say(&mut book, 1, 4, &first);
        assert!(book.wrong()[0].contains("came twice"), "{:?}", book.wrong());
    }

    #[test]
    fn what_a_killed_sender_could_not_say_is_not_held_against_it() {
        // Told, killed, never answered: it may arrive, or not.
        let mut book = book();
        book.text(0, 1, 0);
        book.died(0, seconds(1));
        assert!(book.verdict().is_empty());
        assert_eq!(book.totals().unanswered, 1);
        let event = received(&book, 0, false);
        say(&mut book, 1, 2, &event);
        say(&mut book, 0, 2, &acknowledged(0));
        assert!(book.verdict().is_empty(), "{:?}", book.verdict());

        // Killed after the arrival: the acknowledgement may have been told to nobody.
        let mut book = one();
        let event = received(&book, 0, false);
        say(&mut book, 1, 2, &event);
        book.died(0, seconds(3));
        assert!(book.verdict().is_empty());
        assert_eq!(book.totals().unconfirmed, 1);

        // Killed before: the process after it must be told.
        let mut book = one();
        book.died(0, seconds(2));
        let event = received(&book, 0, false);
        say(&mut book, 1, 15, &event);
        assert!(book.verdict()[0].contains("not acknowledged"));
        say(&mut book, 0, 16, &acknowledged(0));
        assert!(book.verdict().is_empty());
    }

    #[test]
    fn half_a_line_says_nothing() {
        let mut book = one();
        assert!(book.take(0, seconds(2), "{\"event\":\"acknowledged\",\"id\":\"id").is_empty());
        assert!(book.open()[0].contains("has not arrived"));
    }
}
