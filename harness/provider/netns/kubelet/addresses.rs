//! The addresses that a node hands out to its pods.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Mutex, PoisonError};

use ipnet::Ipv4Net;

/// A node's part of the pod CIDR.
#[derive(Debug)]
pub struct Addresses {
    range: Ipv4Net,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    by_pod: BTreeMap<String, Ipv4Addr>,
    last: u32,
}

impl Addresses {
    /// All of `range` is free, but for its network, gateway (the first) and broadcast addresses.
    pub fn new(range: Ipv4Net) -> Self {
        Self { range, taken: Mutex::default() }
    }

    /// The pods' default route.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.range.network().to_bits().wrapping_add(1))
    }

    /// The pod's address: the one that it has, or the next free one. An address that was given back is
    /// used again as late as possible, so that a new pod is not mistaken for an old one. `None`: all are taken.
    pub fn take(&self, pod: &str) -> Option<Ipv4Addr> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(address) = taken.by_pod.get(pod) {
            return Some(*address);
        }
        let (first, end) = (self.range.network().to_bits() + 2, self.range.broadcast().to_bits());
        let size = end.checked_sub(first)?;
        let next = (0..size).map(|step| first + (taken.last + step) % size);
        let found = next.map(Ipv4Addr::from_bits).find(|a| !taken.by_pod.values().any(|t| t == a))?;
        taken.last = found.to_bits() - first + 1;
        taken.by_pod.insert(pod.to_owned(), found);
        Some(found)
    }

    /// Frees the pod's address.
    pub fn give_back(&self, pod: &str) {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).by_pod.remove(pod);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pod_has_its_own_and_old_ones_rest() {
        let addresses = Addresses::new("10.10.1.0/29".parse().unwrap());
        assert_eq!(addresses.gateway(), Ipv4Addr::new(10, 10, 1, 1));
        let take = |pod: &str| addresses.take(pod).map(|a| a.octets()[3]);
        assert_eq!((take("a"), take("b"), take("a")), (Some(2), Some(3), Some(2)));
        addresses.give_back("a");
        assert_eq!((take("c"), take("d"), take("e"), take("f")), (Some(4), Some(5), Some(6), Some(2)));
        assert_eq!(take("g"), None);
    }

    proptest::proptest! {
        #[test]
        fn never_the_same_twice(prefix in 24u8..=29, pods in 1usize..40) {
            let range = Ipv4Net::new(Ipv4Addr::new(10, 0, 0, 0), prefix).unwrap();
            let addresses = Addresses::new(range);
            let given: Vec<_> = (0..pods).filter_map(|p| addresses.take(&p.to_string())).collect();
            let mut distinct = given.clone();
            distinct.sort();
            distinct.dedup();
            proptest::prop_assert_eq!(distinct.len(), given.len());
            proptest::prop_assert_eq!(given.len(), pods.min(range.hosts().count() - 1));
            proptest::prop_assert!(given.iter().all(|a| range.contains(a) && *a != addresses.gateway()));
        }
    }
}
