use curve25519_dalek::montgomery::MontgomeryPoint;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use tombola_lanes::{BATCH, Multiples, Path, x25519};
#[test]
fn quick() {
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    for path in Path::all() {
        for _ in 0..50 {
            let mut p = [[0; 32]; BATCH];
            let mut k = [[0; 32]; BATCH];
            for i in 0..BATCH {
                let mut b = [0; 32];
                rng.fill_bytes(&mut b);
                p[i] = MontgomeryPoint::mul_base_clamped(b).to_bytes();
                rng.fill_bytes(&mut k[i]);
            }
            let expected: Vec<_> =
                p.iter().zip(&k).map(|(p, k)| MontgomeryPoint(*p).mul_clamped(*k).to_bytes()).collect();
            let (pr, kr): (Vec<_>, Vec<_>) = (p.iter().collect(), k.iter().collect());
            let mut out = [[0; 32]; BATCH];
            x25519(path, &pr, &kr, &mut out);
            assert_eq!(out[..], expected, "ladder {}", path.name());
            let mut m = Multiples::new(path);
            m.set(&pr);
            let mut out = [[0; 32]; BATCH];
            m.multiply(&kr, &mut out);
            assert_eq!(out[..], expected, "comb {}", path.name());
        }
    }
}
#[test]
fn speed() {
    let p = [[9; 32]; BATCH];
    let mut p = p;
    for (i, p) in p.iter_mut().enumerate() {
        *p = MontgomeryPoint::mul_base_clamped([i as u8; 32]).to_bytes();
    }
    let k = [[77; 32]; BATCH];
    let (pr, kr): (Vec<_>, Vec<_>) = (p.iter().collect(), k.iter().collect());
    let mut out = [[0; 32]; BATCH];
    let time = |f: &mut dyn FnMut()| {
        let mut best = f64::MAX;
        for _ in 0..60 {
            let t = std::time::Instant::now();
            f();
            best = best.min(t.elapsed().as_secs_f64());
        }
        best * 1e6 / BATCH as f64
    };
    println!(
        "dalek {:.2}",
        time(&mut || for i in 0..BATCH {
            out[i] = MontgomeryPoint(p[i]).mul_clamped(k[i]).to_bytes()
        })
    );
    for path in Path::all() {
        let l = time(&mut || x25519(path, &pr, &kr, &mut out));
        let mut m = Multiples::new(path);
        let s = time(&mut || m.set(&pr));
        let x = time(&mut || m.multiply(&kr, &mut out));
        println!(
            "{} ladder {l:.2} set {s:.2} mul {x:.2} hop {:.2} vs {:.2}",
            path.name(),
            s + 2.0 * x,
            2.0 * l
        );
    }
}
