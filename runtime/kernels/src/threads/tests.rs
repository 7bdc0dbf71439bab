use super::*;
use std::collections::BTreeSet;
use std::sync::Barrier;

/// Names of the threads that take part in a loop whose `n_chunks` chunks wait for each other.
fn names(pool: &ThreadPool, n_chunks: usize) -> BTreeSet<String> {
    let (barrier, names) = (Barrier::new(n_chunks), Mutex::new(BTreeSet::new()));
    pool.run(n_chunks, &|_| {
        barrier.wait();
        let this = std::thread::current();
        lock(&names).insert(this.name().unwrap_or_default().to_owned());
    });
    names.into_inner().unwrap()
}

#[test]
fn a_pool_does_with_the_threads_that_the_system_grants() {
    for granted in [0, 2] {
        let pool = ThreadPool::started_by(8, |index, work| match index <= granted {
            true => std::thread::Builder::new().spawn(work),
            false => Err(io::ErrorKind::WouldBlock.into()),
        });
        assert_eq!((pool.size(), pool.n_threads()), (granted + 1, granted + 1));
        let sum = AtomicUsize::new(0);
        for n_chunks in [1, 3, 100] {
            pool.run(n_chunks, &|_| {
                sum.fetch_add(1, Ordering::Relaxed);
            });
        }
        assert_eq!(sum.into_inner(), 104);
    }
}

#[test]
fn each_chunk_runs_exactly_once() {
    for n_threads in [1, 2, 3, 5] {
        let pool = ThreadPool::new(n_threads);
        assert_eq!(pool.n_threads(), n_threads);
        for n_chunks in [0, 1, 2, 3, 7, 100, 1000] {
            let counts: Vec<_> = (0..n_chunks).map(|_| AtomicUsize::new(0)).collect();
            pool.run(n_chunks, &|i| {
                counts[i].fetch_add(1, Ordering::Relaxed);
            });
            assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1));
        }
    }
}

#[test]
fn many_short_loops_and_parked_workers_lose_nothing() {
    let pool = ThreadPool::new(3);
    let total = AtomicUsize::new(0);
    for round in 0..2000 {
        pool.run(5, &|i| {
            total.fetch_add(i, Ordering::Relaxed);
        });
        if round % 500 == 0 {
            std::thread::sleep(SPIN * 4);
        }
    }
    assert_eq!(total.into_inner(), 2000 * 10);
}

#[test]
fn chunks_of_a_slice_cover_it_once() {
    let pool = ThreadPool::new(2);
    let mut data = vec![0_u32; 103];
    pool.for_each_chunk_mut(&mut data, 10, &|index, chunk| {
        assert_eq!(chunk.len(), if index == 10 { 3 } else { 10 });
        for value in chunk {
            *value += 1 + index as u32;
        }
    });
    for (i, value) in data.iter().enumerate() {
        assert_eq!(*value as usize, 1 + i / 10);
    }
}

#[test]
fn a_panic_in_a_chunk_reaches_the_caller_and_the_pool_survives() {
    let pool = ThreadPool::new(2);
    for chunk_that_panics in [0, 3] {
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            pool.run(8, &|i| {
                if i == chunk_that_panics {
                    panic!("chunk {i}");
                }
            });
        }));
        let payload = outcome.expect_err("the panic continues in the caller");
        assert_eq!(
            payload.downcast_ref::<String>().unwrap(),
            &format!("chunk {chunk_that_panics}")
        );
    }
    let total = AtomicUsize::new(0);
    pool.run(4, &|i| {
        total.fetch_add(i, Ordering::Relaxed);
    });
    assert_eq!(total.into_inner(), 6);
}

#[test]
fn nested_and_concurrent_loops_finish() {
    let pool = ThreadPool::new(3);
    let total = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..50 {
                    pool.run(4, &|_| {
                        pool.run(3, &|_| {
                            total.fetch_add(1, Ordering::Relaxed);
                        });
                    });
                }
            });
        }
    });
    assert_eq!(total.into_inner(), 3 * 50 * 4 * 3);
}

#[test]
fn a_limited_loop_takes_the_first_workers_and_the_next_loop_all() {
    let pool = ThreadPool::new(4);
    let caller = std::thread::current().name().unwrap().to_owned();
    let threads = |n: usize| {
        let workers = (1..n).map(|index| format!("ocelli-{index}"));
        workers.chain([caller.clone()]).collect::<BTreeSet<_>>()
    };
    for round in 0..200 {
        for limit in [2, 4, 3] {
            pool.limited(limit, || {
                assert_eq!(pool.n_threads(), limit);
                assert_eq!(names(&pool, limit), threads(limit), "round {round}");
            });
        }
        assert_eq!((pool.n_threads(), pool.size()), (4, 4));
        assert_eq!(names(&pool, 4), threads(4), "round {round}");
        if round % 50 == 0 {
            std::thread::sleep(SPIN * 4);
        }
    }
    // More chunks than threads, so that workers who are not wanted would find some.
    let caller = &caller;
    pool.limited(2, || {
        let seen = Mutex::new(BTreeSet::new());
        for _ in 0..300 {
            pool.run(40, &|_| {
                (0..200).for_each(|_| std::hint::spin_loop());
                let this = std::thread::current();
                lock(&seen).insert(this.name().unwrap().to_owned());
            });
        }
        let mut seen = seen.into_inner().unwrap();
        seen.retain(|name| name != caller && name != "ocelli-1");
        assert_eq!(seen, BTreeSet::new());
    });
}

#[test]
fn a_limit_is_at_least_the_caller_and_ends_with_its_work() {
    let pool = ThreadPool::new(3);
    pool.limited(0, || assert_eq!(pool.n_threads(), 1));
    pool.limited(9, || assert_eq!(pool.n_threads(), 3));
    pool.limited(2, || {
        pool.limited(3, || assert_eq!(pool.n_threads(), 2, "the smaller holds"));
        // Another thread is not limited.
        std::thread::scope(|scope| {
            scope.spawn(|| assert_eq!(pool.n_threads(), 3));
        });
    });
    let outcome = catch_unwind(AssertUnwindSafe(|| pool.limited(1, || panic!("inside"))));
    assert!(outcome.is_err());
    assert_eq!(pool.n_threads(), 3);
}
