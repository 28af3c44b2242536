//! Sends one text and waits until its packets have left.
//!
//! ```sh
//! cargo run -p tombola-client --example send -- FOLDER ADDRESS "hello"
//! ```

use anyhow::{Context, Result};
use tombola_client::{Client, ConnectOptions, Content, Home};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    tombola_client::install_crypto_provider();
    let mut args = std::env::args().skip(1);
    let mut next = || args.next().context("usage: send FOLDER ADDRESS TEXT");
    let (folder, to, text) = (next()?, next()?.parse()?, next()?);
    let home = Home::open(folder)?;
    // A program that only sends leaves its mail where it is.
    let options = ConnectOptions { collect: false, ..ConnectOptions::default() };
    let client = Client::connect_with(&home, options).await?;
    client.send(&to, &Content::Text(text)).await?;
    client.flush().await?;
    client.close().await?;
    Ok(())
}
