//! Makes a signed network document from a draft:
//!
//! ```text
//! cargo run -p tombola-topology --example sign_network -- authority.seed < draft.json > network.json
//! ```
//!
//! The first argument is a file with the authority's seed, 64 hexadecimal characters. `examples/draft.json`
//! is a draft to begin with; a document that was signed before can be changed and signed again as well.

use std::error::Error;
use std::io::{Read, Write};

use tombola_topology::{AuthoritySecret, Draft, MAX_DOCUMENT_LEN};
use zeroize::Zeroizing;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: sign_network SEED-FILE < DRAFT > NETWORK")?;
    let text = Zeroizing::new(std::fs::read_to_string(path)?);
    let mut seed = Zeroizing::new([0; 32]);
    hex::decode_to_slice(text.trim(), &mut *seed)
        .map_err(|_| "the seed file must hold 64 hexadecimal characters")?;
    let secret = AuthoritySecret::from_seed(*seed);

    // One byte more than allowed is enough to be told that it is too long.
    let mut draft = String::new();
    std::io::stdin().take(MAX_DOCUMENT_LEN as u64 + 1).read_to_string(&mut draft)?;
    let network = Draft::from_json(&draft)?.sign(&secret)?;

    std::io::stdout().write_all(network.to_json().as_bytes())?;
    let mut stderr = std::io::stderr();
    writeln!(stderr, "{}, serial {}, signed by {}", network.name(), network.serial(), network.authority())?;
    Ok(())
}
