//! Who reads which partition: balanced, and as little moved as balance allows.

/// Names a member of a group or an owner of shards.
pub(crate) type Member = u64;

/// Shares partitions among members. `current` is the present owner of each partition. Every member gets the same
/// number, or one more or less; what a member already has within its share it keeps.
pub(crate) fn assign(members: &[Member], current: &[Option<Member>]) -> Vec<Option<Member>> {
    if members.is_empty() {
        return vec![None; current.len()];
    }
    let mut room = quotas(members, current);
    let mut next: Vec<Option<Member>> = vec![None; current.len()];
    for (slot, owner) in next.iter_mut().zip(current) {
        let Some(place) = owner.and_then(|o| members.iter().position(|m| *m == o)) else { continue };
        if room[place] > 0 {
            room[place] -= 1;
            *slot = *owner;
        }
    }
    for slot in next.iter_mut().filter(|s| s.is_none()) {
        // The one with the most room first, so that new members fill up evenly.
        let Some(place) = (0..members.len()).max_by_key(|i| (room[*i], std::cmp::Reverse(*i))) else { break };
        room[place] = room[place].saturating_sub(1);
        *slot = Some(members[place]);
    }
    next
}

/// How many partitions each member gets: those who have most now get the odd ones.
fn quotas(members: &[Member], current: &[Option<Member>]) -> Vec<usize> {
    let (each, odd) = (current.len() / members.len(), current.len() % members.len());
    let held = |m: Member| current.iter().filter(|o| **o == Some(m)).count();
    let mut by_held: Vec<usize> = (0..members.len()).collect();
    by_held.sort_by_key(|i| std::cmp::Reverse(held(members[*i])));
    let mut room = vec![each; members.len()];
    for place in by_held.into_iter().take(odd) {
        room[place] += 1;
    }
    room
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn counts(owners: &[Option<Member>]) -> HashMap<Member, usize> {
        let mut counts = HashMap::new();
        owners.iter().flatten().for_each(|m| *counts.entry(*m).or_default() += 1);
        counts
    }

    #[test]
    fn the_first_member_gets_all_and_the_next_one_half() {
        let one = assign(&[7], &[None; 4]);
        assert_eq!(one, [Some(7); 4]);
        let two = assign(&[7, 9], &one);
        assert_eq!(two, [Some(7), Some(7), Some(9), Some(9)]);
        assert_eq!(assign(&[9], &two), [Some(9); 4]);
        assert_eq!(assign(&[], &two), [None; 4]);
    }

    #[test]
    fn members_beyond_the_partitions_idle() {
        let owners = assign(&[1, 2, 3], &[None; 2]);
        assert_eq!(counts(&owners).len(), 2);
    }

    proptest! {
        #[test]
        fn it_is_balanced_and_sticky(joins in prop::collection::vec((any::<bool>(), 0u64..6), 1..30), parts in 1usize..12) {
            let (mut members, mut owners) = (Vec::new(), vec![None; parts]);
            for (join, m) in joins {
                members.retain(|x| *x != m);
                if join {
                    members.push(m);
                }
                let before = owners.clone();
                owners = assign(&members, &before);
                if members.is_empty() {
                    continue;
                }
                prop_assert!(owners.iter().all(|o| o.is_some_and(|o| members.contains(&o))));
                let (floor, ceil) = (parts / members.len(), parts.div_ceil(members.len()));
                let now = counts(&owners);
                for m in &members {
                    let n = now.get(m).copied().unwrap_or(0);
                    prop_assert!(n == floor || n == ceil);
                    let had = before.iter().filter(|o| **o == Some(*m)).count();
                    let kept = before.iter().zip(&owners).filter(|(b, o)| **b == Some(*m) && b == o).count();
                    prop_assert!(kept >= had.min(floor), "kept {kept} of {had}");
                }
            }
        }
    }
}
