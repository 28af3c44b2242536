//! The tree over the challenges of a batch.
//!
//! Its depth d is the least with 2^d >= count. Missing leaves are 20 zero bytes. An inner node is
//! `keccak(left | right)[..20]`, 40 bytes of input where a challenge has 16, so that neither can pass for the other. The
//! root of one leaf is the leaf. Source: `docs/payment.md`, "Tickets and batches". Nothing here allocates.

use thiserror::Error;

use crate::bytes::{concat, keccak, keccak_each, public_bytes};
use crate::por::{Challenge, Opener};

/// Most tickets of a batch.
pub const MAX_TICKETS: usize = 256;

/// Depth of the tree over [`MAX_TICKETS`] leaves, and the most siblings on a path.
pub const MAX_DEPTH: usize = 8;

const _: () = assert!(1 << MAX_DEPTH == MAX_TICKETS);

public_bytes! {
    /// Root of a batch's tree.
    Root, 20
}

public_bytes! {
    /// A node of the tree below its root: a leaf or an inner node.
    Node, 20
}

/// How many tickets a batch has: 1 to 256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TicketCount {
    less_one: u8,
}

/// No batch has so many tickets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a batch has 1 to 256 tickets, not {0}")]
pub struct CountError(pub usize);

/// Why there is no path from a ticket to the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PathError {
    /// See [`CountError`].
    #[error(transparent)]
    Count(#[from] CountError),
    /// The ticket is not in the batch.
    #[error("ticket {k} is not in a batch of {count}")]
    Ticket {
        /// Its position, from 0.
        k: u8,
        /// Tickets of the batch.
        count: u16,
    },
    /// The path is too short or too long.
    #[error("a path has {expected} siblings, not {found}")]
    Depth {
        /// Depth of the tree.
        expected: usize,
        /// Siblings that were given.
        found: usize,
    },
}

impl TicketCount {
    /// Of a full batch.
    pub const MAX: Self = Self { less_one: u8::MAX };

    /// From the number itself.
    ///
    /// # Errors
    ///
    /// It is 0 or more than 256.
    pub fn new(count: usize) -> Result<Self, CountError> {
        let less_one =
            count.checked_sub(1).and_then(|less| u8::try_from(less).ok()).ok_or(CountError(count))?;
        Ok(Self { less_one })
    }

    /// From the number less one, as batches and claims carry it.
    #[must_use]
    pub const fn from_less_one(less_one: u8) -> Self {
        Self { less_one }
    }

    /// The number less one.
    #[must_use]
    pub const fn less_one(self) -> u8 {
        self.less_one
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.less_one as u16 + 1
    }

    /// Whether ticket `k`, from 0, is one of them.
    #[must_use]
    pub const fn contains(self, k: u8) -> bool {
        k <= self.less_one
    }
}

/// The siblings on the way from a leaf to the root, leaf's first.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Path {
    siblings: [Node; MAX_DEPTH],
    depth: usize,
}

impl core::ops::Deref for Path {
    type Target = [Node];

    fn deref(&self) -> &[Node] {
        &self.siblings[..self.depth]
    }
}

impl core::fmt::Debug for Path {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Depth of the tree over so many leaves: 0 to 8.
#[must_use]
pub const fn depth(count: TicketCount) -> usize {
    (u8::BITS - count.less_one.leading_zeros()) as usize
}

fn parent(left: &Node, right: &Node) -> Node {
    Node::from_bytes(keccak(&*concat::<40>(&[left.as_bytes(), right.as_bytes()])))
}

/// The root over `leaves`; calls `level` with each level below it and its number, that of the leaves first.
fn climb(leaves: &[Challenge], mut level: impl FnMut(usize, &[Node])) -> Result<Root, CountError> {
    let depth = depth(TicketCount::new(leaves.len())?);
    let mut nodes = [Node::from_bytes([0; 20]); MAX_TICKETS];
    for (node, leaf) in nodes.iter_mut().zip(leaves) {
        *node = Node::from_bytes(*leaf.as_bytes());
    }
    for height in 0..depth {
        let width = 1 << (depth - height);
        level(height, &nodes[..width]);
        let mut pairs = [[0; 2 * Node::LEN]; MAX_TICKETS / 2];
        let pairs = &mut pairs[..width / 2];
        for (pair, nodes) in pairs.iter_mut().zip(nodes.as_chunks::<2>().0) {
            let (left, right) = pair.split_at_mut(Node::LEN);
            left.copy_from_slice(nodes[0].as_bytes());
            right.copy_from_slice(nodes[1].as_bytes());
        }
        keccak_each(pairs, |at, hash| nodes[at] = Node::from_bytes(hash));
    }
    Ok(Root::from_bytes(*nodes[0].as_bytes()))
}

/// The root over the challenges of a batch, in the order of their acknowledgements.
///
/// # Errors
///
/// There are none or more than 256.
pub fn root(leaves: &[Challenge]) -> Result<Root, CountError> {
    climb(leaves, |_, _| ())
}

/// The siblings of ticket `k`, from 0.
///
/// # Errors
///
/// There are no leaves, more than 256, or not so many as to have a `k`-th.
pub fn path(leaves: &[Challenge], k: u8) -> Result<Path, PathError> {
    let count = TicketCount::new(leaves.len())?;
    if !count.contains(k) {
        return Err(PathError::Ticket { k, count: count.get() });
    }
    let mut siblings = [Node::from_bytes([0; 20]); MAX_DEPTH];
    climb(leaves, |height, nodes| siblings[height] = nodes[usize::from(k) >> height ^ 1])?;
    Ok(Path { siblings, depth: depth(count) })
}

/// The root of the only tree of `count` leaves in which the ticket that `opener` opens is the `k`-th, from 0, and has
/// these siblings, leaf's first.
///
/// # Errors
///
/// The batch has no such ticket, or there are more or fewer siblings than the tree is deep.
pub fn root_of_path(
    opener: &Opener,
    k: u8,
    siblings: &[Node],
    count: TicketCount,
) -> Result<Root, PathError> {
    if !count.contains(k) {
        return Err(PathError::Ticket { k, count: count.get() });
    }
    if siblings.len() != depth(count) {
        return Err(PathError::Depth { expected: depth(count), found: siblings.len() });
    }
    let leaf = Node::from_bytes(*opener.challenge().as_bytes());
    let top = siblings.iter().enumerate().fold(leaf, |node, (height, sibling)| {
        if k >> height & 1 == 0 { parent(&node, sibling) } else { parent(sibling, &node) }
    });
    Ok(Root::from_bytes(*top.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn opener(at: usize) -> Opener {
        Opener::from_bytes(keccak(&at.to_be_bytes()))
    }

    fn leaves(count: usize) -> Vec<Challenge> {
        (0..count).map(|at| opener(at).challenge()).collect()
    }

    /// The definition, top down.
    fn reference(leaves: &[[u8; 20]]) -> [u8; 20] {
        match leaves {
            [leaf] => *leaf,
            _ => {
                let (left, right) = leaves.split_at(leaves.len() / 2);
                keccak(&[reference(left), reference(right)].concat())
            }
        }
    }

    #[test]
    fn depths() {
        let depths = [1, 2, 3, 4, 5, 8, 9, 16, 17, 32, 33, 64, 65, 128, 129, 255, 256]
            .map(|count| depth(TicketCount::new(count).unwrap()));
        assert_eq!(depths, [0, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 8]);
    }

    #[test]
    fn no_batch_is_empty_or_larger_than_256() {
        assert_eq!(TicketCount::new(0), Err(CountError(0)));
        assert_eq!(TicketCount::new(257), Err(CountError(257)));
        assert_eq!(TicketCount::new(256), Ok(TicketCount::MAX));
        assert_eq!(root(&[]), Err(CountError(0)));
        assert_eq!(root(&leaves(257)), Err(CountError(257)));
        assert_eq!(path(&[], 0), Err(PathError::Count(CountError(0))));
    }

    #[test]
    fn a_single_leaf_is_the_root() {
        assert_eq!(root(&leaves(1)).unwrap().as_bytes(), opener(0).challenge().as_bytes());
    }

    #[test]
    fn missing_leaves_are_zero() {
        for count in [3, 5, 129] {
            let mut padded: Vec<_> = leaves(count).iter().map(|leaf| *leaf.as_bytes()).collect();
            padded.resize(count.next_power_of_two(), [0; 20]);
            assert_eq!(root(&leaves(count)).unwrap().as_bytes(), &reference(&padded));
        }
    }

    #[test]
    fn a_ticket_beyond_the_count_has_no_path() {
        let three = TicketCount::new(3).unwrap();
        let expected = PathError::Ticket { k: 3, count: 3 };
        assert_eq!(path(&leaves(3), 3), Err(expected));
        let siblings = [Node::from_bytes([0; 20]); 2];
        assert_eq!(root_of_path(&opener(0), 3, &siblings, three), Err(expected));
        let found = root_of_path(&opener(0), 0, &siblings[..1], three);
        assert_eq!(found, Err(PathError::Depth { expected: 2, found: 1 }));
    }

    proptest! {
        #[test]
        fn every_path_leads_to_the_root_and_only_for_its_ticket(count in 1..=256_usize, k: u8, other: u8) {
            let leaves = leaves(count);
            let k = k % u8::try_from(count.min(255)).unwrap();
            let siblings = path(&leaves, k).unwrap();
            let root = root(&leaves).unwrap();
            let count = TicketCount::new(count).unwrap();
            prop_assert_eq!(root_of_path(&opener(k.into()), k, &siblings, count), Ok(root));
            prop_assert_ne!(root_of_path(&opener(999), k, &siblings, count), Ok(root));
            if other != k {
                prop_assert_ne!(root_of_path(&opener(k.into()), other, &siblings, count), Ok(root));
            }
        }

        #[test]
        fn order_matters(count in 2..=256_usize, a: usize, b: usize) {
            let (a, b) = (a % count, b % count);
            let mut swapped = leaves(count);
            swapped.swap(a, b);
            prop_assert_eq!(root(&swapped) == root(&leaves(count)), a == b);
        }
    }
}
