//! Plays the neighbours of a mix node under load, or many clients.

use tombola_tests::load::{crowd, player};

fn main() {
    tombola_link::install_crypto_provider();
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some("crowd") => crowd::play(&args.map(Into::into).collect::<Vec<_>>()),
        Some("neighbours") => {
            let cast = player::Cast::from_args(args);
            player::play(&cast.expect("folder, node, whether to send, folders of the played nodes"));
        }
        other => unreachable!("it is started as crowd or neighbours, not as {other:?}"),
    }
}
