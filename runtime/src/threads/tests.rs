use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};

fn trials(times: &[(usize, f64)]) -> Vec<Trial> {
    let times = times.iter();
    times
        .map(|&(threads, seconds)| Trial { threads, seconds })
        .collect()
}

#[test]
fn a_thread_more_must_be_worth_it() {
    for (times, chosen) in [
        // It scales.
        (&[(1, 4.0), (2, 2.1), (3, 1.5), (4, 1.2)][..], 4),
        // Memory is busy with two.
        (&[(1, 4.0), (2, 2.2), (3, 2.15), (4, 2.3)], 2),
        // Two cores are enough for one thread's reads.
        (&[(1, 2.0), (2, 1.95), (4, 2.6)], 1),
        // Just under the margin, just over it.
        (&[(1, 1.0), (2, 0.951)], 1),
        (&[(1, 1.0), (2, 0.949)], 2),
        // Little steps add up: no larger number saves a twentieth of the chosen one's time.
        (&[(1, 1.0), (2, 0.96), (3, 0.92), (4, 0.89)], 3),
        // The mixed number is the slowest.
        (&[(1, 4.0), (2, 2.0), (6, 5.0)], 2),
        // Too quick for the clock.
        (&[(1, 0.0), (2, 0.0)], 1),
        (&[(3, 1.0)], 3),
        (&[], 1),
    ] {
        assert_eq!(fewest_near_best(&trials(times)), chosen, "{times:?}");
    }
}

#[test]
fn each_phase_is_chosen_by_its_own_times() {
    let trials = Trials {
        encode: trials(&[(1, 9.0), (2, 5.0), (4, 3.0)]),
        prefill: trials(&[(1, 9.0), (2, 5.0), (4, 5.0)]),
        decode: trials(&[(1, 9.0), (2, 9.0), (4, 9.0)]),
    };
    let chosen = trials.choose();
    let of = [Phase::Encode, Phase::Prefill, Phase::Decode].map(|phase| chosen.of(phase));
    assert_eq!(of, [4, 2, 1]);
    let plan = ThreadPlan {
        threads: chosen,
        origin: ThreadOrigin::Measured(trials),
    };
    let text = plan.to_string();
    for part in [
        "encode 4, prefill 2, decode 1; measured; encode 9000.00 ms on 1, ",
        "; decode 9000.00 ms on 1",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn times_of_other_threads_or_none_at_all_are_not_taken() {
    let good = || trials(&[(1, 2.0), (2, 1.0)]);
    let of = |encode, prefill, decode| Trials {
        encode,
        prefill,
        decode,
    };
    assert!(of(good(), good(), good()).are_of(&[1, 2], true));
    assert!(of(vec![], good(), good()).are_of(&[1, 2], false));
    assert!(!of(vec![], good(), good()).are_of(&[1, 2], true));
    assert!(!of(good(), good(), good()).are_of(&[1, 2], false));
    assert!(!of(good(), good(), good()).are_of(&[1, 2, 3], true));
    assert!(!of(good(), good(), good()).are_of(&[1], true));
    for odd in [
        trials(&[(1, 2.0), (3, 1.0)]),
        trials(&[(1, 2.0), (2, f64::NAN)]),
        trials(&[(1, f64::INFINITY), (2, 1.0)]),
        trials(&[(1, -1.0), (2, 1.0)]),
        trials(&[]),
    ] {
        assert!(!of(odd.clone(), good(), good()).are_of(&[1, 2], true));
        assert!(!of(good(), odd.clone(), good()).are_of(&[1, 2], true));
        assert!(!of(good(), good(), odd).are_of(&[1, 2], true));
    }
}

#[test]
fn a_phase_has_its_threads_and_never_more_than_are_allowed() {
    let compute = Arc::new(Compute::new(4).unwrap());
    let mut crew = Crew::new(compute.clone());
    let n = |crew: &Crew, phase| crew.work(phase, || compute.n_threads());
    assert_eq!(n(&crew, Phase::Encode), 4);
    crew.threads = PhaseThreads {
        encode: 9,
        prefill: 3,
        decode: 0,
    };
    assert_eq!(n(&crew, Phase::Encode), 4, "no more than there are");
    assert_eq!(n(&crew, Phase::Prefill), 3);
    assert_eq!(n(&crew, Phase::Decode), 1, "the caller works at least");
    let allowed = Arc::new(AtomicUsize::new(2));
    let asked = allowed.clone();
    crew.limit = Some(ThreadLimit::new(move || asked.load(Ordering::Relaxed)));
    assert_eq!(n(&crew, Phase::Encode), 2);
    assert_eq!(n(&crew, Phase::Decode), 1);
    allowed.store(0, Ordering::Relaxed);
    assert_eq!(n(&crew, Phase::Prefill), 1);
    allowed.store(4, Ordering::Relaxed);
    assert_eq!(n(&crew, Phase::Prefill), 3);
}
