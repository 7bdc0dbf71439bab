//! Which cores a process may use, and how fast they are beside each other.

use crate::tree::Tree;

/// Most cores that are looked at.
const MOST_CORES: usize = 1024;
/// A core with less than this share of the fastest one's speed belongs to the next group. Cores of
/// one design whose clocks differ by a step or two are alike.
const ALIKE: f64 = 0.85;
/// Up to here every number of threads is worth trying.
const EVERY: usize = 4;

/// The cores this process may use.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cores {
    /// What they are, as `/proc/cpuinfo` says it, each line once.
    pub design: String,
    /// Cores that are switched on and allowed by the affinity mask, rising.
    pub usable: Vec<usize>,
    /// Sizes of the groups of cores that are about equally fast, the fastest group first; one group
    /// where the kernel does not say.
    pub groups: Vec<usize>,
}

impl Cores {
    /// Reads the cores of `tree`; what cannot be read is left out.
    pub fn read(tree: &Tree) -> Cores {
        let online = tree.text("/sys/devices/system/cpu/online");
        let status = tree.text("/proc/self/status").unwrap_or_default();
        let allowed = status
            .lines()
            .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        let allowed = allowed.and_then(list);
        let usable = match (online.as_deref().and_then(list), allowed) {
            (Some(mut online), Some(allowed)) => {
                online.retain(|core| allowed.binary_search(core).is_ok());
                online
            }
            (online, allowed) => online.or(allowed).unwrap_or_default(),
        };
        Cores {
            design: processor(tree),
            groups: groups(speeds(tree, &usable)),
            usable,
        }
    }

    /// Numbers of threads that are worth trying when `most` may work: of the fastest cores all
    /// numbers if they are few, else about doubling, and then with each slower group as a whole.
    /// Rising, none over `most`, at least 1.
    pub fn candidates(&self, most: usize) -> Vec<usize> {
        let most = most.max(1);
        let fastest = self.groups.first().map_or(most, |n| most.min(*n));
        let doubling = (2..usize::BITS).flat_map(|bit| [1 << bit, 3 << (bit - 1)]);
        let numbers = (1..=EVERY)
            .chain(doubling.take_while(|n| *n <= fastest))
            .filter(|n| *n <= fastest);
        let mut sum = 0_usize;
        let with_slower = self.groups.iter().map(|n| {
            sum = sum.saturating_add(*n);
            sum.min(most)
        });
        let mut numbers: Vec<usize> = numbers.chain([fastest]).chain(with_slower).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }
}

/// How many threads of the whole machine are running or ready to run, the caller among them, by
/// `/proc/loadavg`.
pub fn n_runnable(tree: &Tree) -> Option<usize> {
    let text = tree.text("/proc/loadavg")?;
    let counts = text.split_whitespace().nth(3)?;
    counts.split_once('/')?.0.parse().ok()
}

/// A list of cores as the kernel writes it: `0-3,6`. None if it is anything else.
fn list(text: &str) -> Option<Vec<usize>> {
    let mut cores = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last >= MOST_CORES {
            return None;
        }
        cores.extend(first..=last);
        if cores.len() > MOST_CORES {
            return None;
        }
    }
    cores.sort_unstable();
    cores.dedup();
    Some(cores)
}

/// How fast each core is: by the kernel's measure of capacity, else by the highest clock. Empty if
/// neither is known of all.
fn speeds(tree: &Tree, cores: &[usize]) -> Vec<f64> {
    let read = |file: &str| {
        let of = |core| tree.number(format!("/sys/devices/system/cpu/cpu{core}/{file}"));
        let speeds = cores
            .iter()
            .map(|core| of(core).filter(|speed| *speed > 0.0));
        speeds.collect::<Option<Vec<f64>>>()
    };
    let speeds = read("cpu_capacity").or_else(|| read("cpufreq/cpuinfo_max_freq"));
    speeds.unwrap_or_else(|| vec![1.0; cores.len()])
}

fn groups(mut speeds: Vec<f64>) -> Vec<usize> {
    speeds.sort_by(|a, b| b.total_cmp(a));
    let alike = |fastest: &f64, speed: &f64| *speed >= ALIKE * *fastest;
    let mut groups = Vec::new();
    let mut rest = &speeds[..];
    while let Some(fastest) = rest.first() {
        let n = rest.partition_point(|speed| alike(fastest, speed));
        groups.push(n);
        rest = &rest[n..];
    }
    groups
}

/// What tells processors apart: the lines of `/proc/cpuinfo` that name a design, each once, in order.
pub fn processor(tree: &Tree) -> String {
    const KEYS: [&str; 6] = [
        "model name",
        "stepping",
        "CPU implementer",
        "CPU part",
        "CPU variant",
        "CPU revision",
    ];
    let cpuinfo = tree.text("/proc/cpuinfo").unwrap_or_default();
    let mut found = Vec::new();
    for line in cpuinfo.lines() {
        let Some((key, value)) = line.split_once(':') else {
            continue;
        };
        let fact = (key.trim(), value.trim());
        if KEYS.contains(&fact.0) && !found.contains(&fact) && found.len() < 32 {
            found.push(fact);
        }
    }
    let facts = found.iter().map(|(key, value)| format!("{key} {value}"));
    facts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::{Cores, list, n_runnable};
    use crate::fixture::Fixture;
    use proptest::prelude::*;

    const CPUINFO: &str = "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd05\n\n\
        processor\t: 1\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\nHardware\t: x\n";

    fn board(speeds: &[(&str, &str)], online: &str, allowed: &str) -> Cores {
        let status = format!("Name:\tocelli\nCpus_allowed_list:\t{allowed}\nThreads:\t1\n");
        let fixture = Fixture::new(&[
            ("sys/devices/system/cpu/online", online),
            ("proc/self/status", &status),
            ("proc/cpuinfo", CPUINFO),
        ]);
        for (path, value) in speeds {
            fixture.write(&format!("sys/devices/system/cpu/{path}"), value);
        }
        Cores::read(&fixture.tree())
    }

    #[test]
    fn what_is_ready_to_run_is_counted() {
        for (text, n) in [
            ("2.03 1.41 0.92 3/187 20415\n", Some(3)),
            ("0.00 0.00 0.00 12/900 7\n", Some(12)),
            ("0.00 0.00 0.00", None),
            ("0.00 0.00 0.00 x/900 7", None),
            ("0.00 0.00 0.00 3", None),
            ("", None),
        ] {
            let fixture = Fixture::new(&[("proc/loadavg", text)]);
            assert_eq!(n_runnable(&fixture.tree()), n, "{text:?}");
        }
        assert_eq!(n_runnable(&Fixture::new(&[]).tree()), None);
    }

    #[test]
    fn big_cores_come_first_and_little_ones_as_a_whole() {
        let capacities = [
            ("cpu0/cpu_capacity", "446\n"),
            ("cpu1/cpu_capacity", "446\n"),
            ("cpu2/cpu_capacity", "446\n"),
            ("cpu3/cpu_capacity", "446\n"),
            ("cpu4/cpu_capacity", "1024\n"),
            ("cpu5/cpu_capacity", "1000\n"),
        ];
        let cores = board(&capacities, "0-5\n", "0-5");
        assert_eq!(cores.usable, [0, 1, 2, 3, 4, 5]);
        assert_eq!(cores.groups, [2, 4]);
        assert_eq!(cores.candidates(6), [1, 2, 6]);
        assert_eq!(cores.candidates(4), [1, 2, 4], "a quota of 4");
        assert_eq!(cores.candidates(1), [1]);
        assert_eq!(
            cores.design,
            "CPU implementer 0x41, CPU part 0xd05, CPU part 0xd0b"
        );
        // The mask leaves little ones and one big one.
        let cores = board(&capacities, "0-5\n", "0,2-4");
        assert_eq!(cores.usable, [0, 2, 3, 4]);
        assert_eq!(cores.groups, [1, 3]);
        assert_eq!(cores.candidates(4), [1, 4]);
        // One is switched off.
        let cores = board(&capacities, "0-4\n", "0-5");
        assert_eq!(cores.groups, [1, 4]);
    }

    #[test]
    fn clocks_stand_in_for_capacities() {
        let clocks = [
            ("cpu0/cpufreq/cpuinfo_max_freq", "1800000\n"),
            ("cpu1/cpufreq/cpuinfo_max_freq", "1416000\n"),
            ("cpu2/cpufreq/cpuinfo_max_freq", "1700000\n"),
        ];
        assert_eq!(board(&clocks, "0-2", "0-2").groups, [2, 1]);
        // A capacity that not all have says nothing.
        let some = [&clocks[..], &[("cpu1/cpu_capacity", "1024")]].concat();
        assert_eq!(board(&some, "0-2", "0-2").groups, [2, 1]);
        // Nor does a clock that not all have, or one of nothing.
        assert_eq!(board(&clocks[..2], "0-2", "0-2").groups, [3]);
        let none = [&clocks[..2], &[("cpu2/cpufreq/cpuinfo_max_freq", "0")]].concat();
        assert_eq!(board(&none, "0-2", "0-2").groups, [3]);
    }

    #[test]
    fn equal_cores_are_tried_in_every_number_while_they_are_few() {
        for (n, candidates) in [
            (1, &[1][..]),
            (3, &[1, 2, 3]),
            (4, &[1, 2, 3, 4]),
            (6, &[1, 2, 3, 4, 6]),
            (7, &[1, 2, 3, 4, 6, 7]),
            (16, &[1, 2, 3, 4, 6, 8, 12, 16]),
        ] {
            let cores = board(&[], &format!("0-{}", n - 1), "0-63");
            assert_eq!(cores.groups, [n]);
            assert_eq!(cores.candidates(n), candidates);
            assert_eq!(
                Cores::default().candidates(n),
                candidates,
                "nothing is known"
            );
        }
        assert_eq!(Cores::default().candidates(0), [1]);
    }

    #[test]
    fn lists_are_read_as_the_kernel_writes_them() {
        assert_eq!(list("0-2,6\n"), Some(vec![0, 1, 2, 6]));
        assert_eq!(list(" 3"), Some(vec![3]));
        assert_eq!(list("1,0-1"), Some(vec![0, 1]));
        for odd in ["", "-", "3-1", "0-", "a", "0-99999999999", "0-1024", "0,,1"] {
            assert_eq!(list(odd), None, "{odd:?}");
        }
        // Without a mask the cores that are on count, and the other way round.
        let fixture = Fixture::new(&[("sys/devices/system/cpu/online", "0-1")]);
        assert_eq!(Cores::read(&fixture.tree()).usable, [0, 1]);
        let status = "Cpus_allowed_list:\t1-3\n";
        let fixture = Fixture::new(&[("proc/self/status", status)]);
        assert_eq!(Cores::read(&fixture.tree()).usable, [1, 2, 3]);
        assert_eq!(Cores::read(&Fixture::new(&[]).tree()), Cores::default());
    }

    proptest! {
        #[test]
        fn candidates_rise_from_1_and_none_is_over_the_most(
            groups in prop::collection::vec(1_usize..40, 0..4),
            most in 0_usize..200,
        ) {
            let cores = Cores { groups, ..Cores::default() };
            let candidates = cores.candidates(most);
            prop_assert_eq!(candidates[0], 1);
            prop_assert!(candidates.is_sorted_by(|a, b| a < b));
            prop_assert!(candidates.iter().all(|n| *n <= most.max(1)));
            prop_assert!(candidates.len() <= 32);
        }

        #[test]
        fn no_list_of_cores_is_too_odd(text in "[0-9,\\- ]{0,40}") {
            let cores = list(&text).unwrap_or_default();
            prop_assert!(cores.iter().all(|core| *core < 1024));
        }
    }
}
