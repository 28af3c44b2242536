//! Plays the neighbours of a mix node under load, or many clients.

use tombola_tests::load::{crowd, player};

fn main() {
    tombola_link::install_crypto_provider();
    let mut args = std::env::args().skip(1);
    let role = args.next().expect("crowd or neighbours");
    if role == "crowd" {
        return crowd::play(&args.map(Into::into).collect::<Vec<_>>());
    }
    assert_eq!(role, "neighbours", "it plays nothing else");
    let cast = player::Cast::from_args(args);
    player::play(&cast.expect("folder, node, whether to send, folders of the played nodes"));
}
