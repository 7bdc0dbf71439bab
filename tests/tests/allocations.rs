//! Decoding allocates nothing: from asking for the next token to its piece of text, on every
//! thread. A test of its own, for everything in this process is counted.

use ocelli_runtime::pack::WeightScheme;
use ocelli_runtime::{GenerateOptions, LoadOptions, ModelSource, Sampling, Session, Vlm};
use ocelli_tests::checkpoint::Checkpoint;
use ocelli_tests::gguf::convert::{Storage, write_fixture};
use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Tokens of one answer at most, and of all answers of one kind at least.
const TOKENS: usize = 140;
/// A model may end an answer at any token.
const ATTEMPTS: usize = 40;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call is the system allocator's, with what it was called with.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
        // SAFETY: by the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
        // SAFETY: by the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
        // SAFETY: by the caller's promise.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: by the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

fn load(source: &Path, weights: Option<WeightScheme>, threads: usize) -> Vlm {
    let options = LoadOptions {
        threads,
        weights,
        ..LoadOptions::default()
    };
    let source = ModelSource::Path(source.to_path_buf());
    Vlm::load(&source, &options, &mut |_, _| {}).unwrap()
}

/// Greedy, and drawn with every filter.
fn samplings(seed: usize) -> [Sampling; 3] {
    let drawn = Sampling {
        temperature: 1.0,
        seed: seed as u64,
        ..Sampling::default()
    };
    let filtered = Sampling {
        temperature: 1.3,
        top_k: 200,
        top_p: 0.95,
        repetition_penalty: 1.1,
        ..drawn.clone()
    };
    [Sampling::default(), drawn, filtered]
}

/// Allocations of each token of an answer. The first prompt is one token, which leaves the kernels'
/// workers without scratch; answers run across blocks of keys and values and of rotary positions.
fn allocations(session: &mut Session, seed: usize, which: usize) -> Vec<usize> {
    let prompt: Vec<u32> = (0..1 + 9 * seed)
        .map(|i| 5 + (seed + 7 * i) as u32 % 200)
        .collect();
    session.truncate(0);
    session.extend(&prompt).unwrap();
    let sampling = samplings(seed)[which].clone();
    let options = GenerateOptions {
        max_tokens: TOKENS,
        sampling,
        stop: vec!["no such text".into(), "\u{1}\u{2}".into()],
    };
    let mut counts = Vec::with_capacity(TOKENS + 1);
    let mut generation = session.generate(options).unwrap();
    if which == 1 {
        generation = generation.with_probabilities();
    }
    loop {
        let before = ALLOCATIONS.load(Ordering::SeqCst);
        let piece = generation.next_piece().unwrap();
        let more = piece.is_some_and(|piece| piece.token.is_some());
        let after = ALLOCATIONS.load(Ordering::SeqCst);
        if !more {
            return counts;
        }
        counts.push(after - before);
    }
}

#[test]
fn nothing_is_allocated_for_a_token() {
    let checkpoints = ["tiny", "gqa5"].map(|fixture| {
        let dir = tempfile::tempdir().unwrap();
        Checkpoint::of_fixture(fixture).write(dir.path()).unwrap();
        dir
    });
    let int4 = Some(WeightScheme::Int4);
    let grid = tempfile::tempdir().unwrap();
    let [on_grid, _] = write_fixture("tiny", Storage::Q4_0, grid.path()).unwrap();
    let models = [
        ("tiny on its grid", on_grid.as_path(), int4),
        ("tiny", checkpoints[0].path(), None),
        ("tiny in int4", checkpoints[0].path(), int4),
        ("gqa5", checkpoints[1].path(), None),
    ];
    for (name, source, weights) in models {
        for threads in [1, 2] {
            let model = load(source, weights, threads);
            let mut session = model.session().unwrap();
            for which in 0..samplings(0).len() {
                let what = format!("{name}, {threads} threads, sampling {which}");
                let mut n_tokens = 0;
                for seed in 0..ATTEMPTS {
                    let counts = allocations(&mut session, seed, which);
                    let clean = counts.iter().all(|count| *count == 0);
                    assert!(clean, "{what}: allocations by token: {counts:?}");
                    n_tokens += counts.len();
                    if n_tokens >= TOKENS {
                        break;
                    }
                }
                assert!(n_tokens >= TOKENS, "{what}: only {n_tokens} tokens in all");
            }
        }
    }
}
