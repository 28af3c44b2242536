//! Runs every path on secrets that valgrind takes for undefined: memcheck then complains of each branch and each address
//! that depends on one (after `ctgrind`, by Adam Langley, 2010). `cargo xtask constant-time` runs it so.
//!
//! It names each path that it has run, since valgrind may hide instructions that the processor has.
//!
//! With the argument `branch` or `address` it also does what it must not, once: if memcheck does not complain of that, it
//! would not complain of anything.
#![allow(unsafe_code, reason = "a request to valgrind is a sequence of instructions, and a leak on purpose")]

use std::hint::black_box;

use tombola_lanes::sha256::Expansion;
use tombola_lanes::{
    BATCH, Kept, Multiples, Path, Single, blake2b, chacha20, keccak, sha256, x25519, x25519_base,
};

/// Requests of valgrind and its memcheck (`valgrind.h`, `memcheck.h`).
const RUNNING_ON_VALGRIND: u64 = 0x1001;
const MAKE_MEM_UNDEFINED: u64 = 0x4d43_0001;
const MAKE_MEM_DEFINED: u64 = 0x4d43_0002;

/// Sends a request; 0 if valgrind does not run this.
#[cfg(target_arch = "x86_64")]
fn request(code: u64, address: u64, len: u64) -> u64 {
    let arguments = [code, address, len, 0, 0, 0];
    let mut result = 0;
    // SAFETY: the rotations add up to two full turns and the exchange does nothing: a processor takes this for a no-op.
    // Valgrind reads the six arguments, and writes rdx only.
    unsafe {
        std::arch::asm!(
            "rol rdi, 3", "rol rdi, 13", "rol rdi, 61", "rol rdi, 51", "xchg rbx, rbx",
            in("rax") &raw const arguments, inout("rdx") result, options(nostack)
        );
    }
    result
}

#[cfg(not(target_arch = "x86_64"))]
fn request(_: u64, _: u64, _: u64) -> u64 {
    0
}

/// Makes bytes secret, or public again.
fn mark<T>(code: u64, bytes: &T) {
    request(code, std::ptr::from_ref(bytes).addr() as u64, size_of::<T>() as u64);
}

fn secret<const N: usize>(start: u8) -> [[u8; N]; BATCH] {
    let mut number = start;
    let secrets = [(); BATCH].map(|()| {
        [(); N].map(|()| {
            number = number.wrapping_mul(5).wrapping_add(3);
            number
        })
    });
    let secrets = black_box(secrets);
    mark(MAKE_MEM_UNDEFINED, &secrets);
    secrets
}

fn main() {
    let leak = std::env::args().nth(1).unwrap_or_default();
    if request(RUNNING_ON_VALGRIND, 0, 0) == 0 {
        say("valgrind does not run this: nothing is checked");
    }
    // Public points: on the curve (a few multiples of the base point), and in the second batch one on the twist.
    let mut base = [0; 32];
    base[0] = 9;
    let mut points = [base; BATCH];
    for at in 1..BATCH {
        points[at] = Single::new(&points[at - 1]).multiply(&[7; 32]);
    }
    let mut twisted = points;
    twisted[3] = [2; 32];
    twisted[3][1..].fill(0);

    for path in Path::all() {
        let scalars = secret::<32>(1);
        let scalars_by_reference = scalars.each_ref();
        let mut out = [[0; 32]; BATCH];
        for points in [&points, &twisted] {
            let points = points.each_ref();
            x25519(path, &points, &scalars_by_reference, &mut out);
            mark(MAKE_MEM_DEFINED, &out);
            let mut multiples = Multiples::new(path);
            multiples.set(&points);
            multiples.multiply(&scalars_by_reference, &mut out);
            mark(MAKE_MEM_DEFINED, &out);
        }
        let mut eighths = secret::<32>(2);
        eighths.iter_mut().for_each(|eighth| eighth[31] &= 0x0f);
        let mut multiples = Multiples::new(path);
        multiples.set(&points.each_ref());
        multiples.multiply_eighths(&eighths.each_ref(), &mut out);
        mark(MAKE_MEM_DEFINED, &out);
        let kept = points.each_ref().map(|point| Kept::new(point).expect("the point is on the curve"));
        multiples.set_kept(&kept.each_ref());
        multiples.multiply(&scalars_by_reference, &mut out);
        mark(MAKE_MEM_DEFINED, &out);
        multiples.multiply_eighths(&eighths.each_ref(), &mut out);
        mark(MAKE_MEM_DEFINED, &out);
        x25519_base(path, &scalars_by_reference, &mut out);
        mark(MAKE_MEM_DEFINED, &out);

        let mut expanded = [[0; 336]; BATCH];
        let expansions = [Expansion { info: b"a", range: 0..288 }, Expansion { info: b"b", range: 288..336 }];
        sha256::hkdf(path, b"salt", &scalars, &expansions, &mut expanded);
        mark(MAKE_MEM_DEFINED, &expanded);
        let mac_keys = secret::<16>(3);
        let message = [1; 300];
        let mut macs = [[0; 16]; BATCH];
        sha256::hmac(path, &mac_keys, &[&message; BATCH], &mut macs);
        mark(MAKE_MEM_DEFINED, &macs);
        let hash_keys = secret::<64>(4);
        let mut data = secret::<500>(5);
        let messages = data.each_ref().map(|data| &data[..]);
        blake2b::keyed_256(path, &hash_keys.each_ref(), &messages, &mut out);
        mark(MAKE_MEM_DEFINED, &out);
        keccak::keccak_256(path, &hash_keys, &mut out);
        mark(MAKE_MEM_DEFINED, &out);
        chacha20::apply(path, &scalars[0], &mut data[0]);
        mark(MAKE_MEM_DEFINED, &data);

        say(&format!("path {}", path.name()));
        match &*leak {
            "branch" if scalars[0][0] & 1 == 1 => say("odd"),
            "address" => {
                black_box(points[usize::from(scalars[0][0] & 7)]);
            }
            _ => {}
        }
    }
}

#[expect(clippy::print_stderr, reason = "a program reports on its standard error")]
fn say(text: &str) {
    eprintln!("{text}");
}
