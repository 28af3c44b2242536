use std::time::Instant;
use blake2::{Blake2bMac, digest::{KeyInit, Mac, consts::U32}};
use chacha20::{ChaCha20, cipher::{KeyIvInit, StreamCipher}};
use hkdf::Hkdf; use sha2::Sha256; use hmac::Hmac;
fn time(n:&str,mut f:impl FnMut()){let mut b=f64::MAX;for _ in 0..500{let t=Instant::now();for _ in 0..100{f()} b=b.min(t.elapsed().as_nanos() as f64/100.0);}println!("{n}: {b:.0} ns");}
fn main(){
 let mut buf=[7u8;2016]; let key=[3u8;32]; let k64=[5u8;64];
 time("chacha 2016",||{ChaCha20::new((&key).into(),&[0;12].into()).apply_keystream(&mut buf)});
 let mut buf2=[7u8;2048];
 time("chacha 2048",||{ChaCha20::new((&key).into(),&[0;12].into()).apply_keystream(&mut buf2)});
 time("blake2b 2016",||{let mut m=Blake2bMac::<U32>::new((&k64).into());m.update(&buf);std::hint::black_box(m.finalize());});
 let mut o=[0u8;288];
 time("hkdf extract",||{std::hint::black_box(Hkdf::<Sha256>::new(None,&key));});
 let h=Hkdf::<Sha256>::new(None,&key);
 time("hkdf expand 288",||{h.expand(&[1u8;97],&mut o).unwrap();std::hint::black_box(&o);});
 time("hkdf expand 16",||{h.expand(&[1u8;13],&mut o[..16]).unwrap();std::hint::black_box(&o);});
 time("hkdf payload",||{let h=Hkdf::<Sha256>::new(Some(&[1u8;44]),&key[..16]);h.expand(&[1u8;44],&mut o[..192]).unwrap();std::hint::black_box(&o);});
 time("hmac 300",||{let mut m=<Hmac<Sha256> as KeyInit>::new_from_slice(&key[..16]).unwrap();m.update(&buf[..300]);std::hint::black_box(m.finalize());});
 time("ctr 360",||{use ctr::cipher::KeyIvInit; let mut c=ctr::Ctr64BE::<aes::Aes128>::new((&[1u8;16]).into(),&[0;16].into()); ctr::cipher::StreamCipher::apply_keystream(&mut c,&mut buf[..360]);});
}
