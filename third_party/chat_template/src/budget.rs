//! A budget of memory and time for one piece of work, which runs in a thread of its own.
//!
//! Steps bound a template's time but not its memory: a text that doubles sixty times takes few
//! steps. An allocator can't fail without ending the process, so when the budget is spent the
//! allocator stops that thread for good and the caller is told. What the thread holds is lost; the
//! caller must not run the same work again.
// SPDX-License-Identifier: Apache-2.0
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

enum Stage<T> {
    Working,
    Done(T),
    Spent,
}

struct Shared<T> {
    stage: Mutex<Stage<T>>,
    changed: Condvar,
    abandoned: AtomicBool,
}

/// What the allocator needs of Shared, whatever T is.
trait Stop {
    fn is_abandoned(&self) -> bool;
    fn report_spent(&self);
}

impl<T> Stop for Shared<T> {
    fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }
    fn report_spent(&self) {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = Stage::Spent;
        self.changed.notify_all();
    }
}

thread_local! {
    static LEFT: Cell<i64> = const { Cell::new(i64::MAX) };
    static STOP: Cell<Option<*const dyn Stop>> = const { Cell::new(None) };
}

extern "C" {
    fn pause() -> i32;
}

fn charge(bytes: i64) {
    let _ = STOP.try_with(|stop| {
        let stop = match stop.get() {
            Some(stop) => stop,
            None => return,
        };
        LEFT.with(|left| left.set(left.get() - bytes));
        // SAFETY: `run` keeps what STOP points to alive while STOP is set in this thread.
        let stop = unsafe { &*stop };
        if bytes > 0 && (LEFT.with(Cell::get) < 0 || stop.is_abandoned()) {
            stop.report_spent();
            loop {
                // SAFETY: waits for a signal; nothing else.
                unsafe { pause() };
            }
        }
    });
}

struct Budgeted;

#[global_allocator]
static ALLOCATOR: Budgeted = Budgeted;

// SAFETY: the system's allocator, with counting that neither allocates nor unwinds.
unsafe impl GlobalAlloc for Budgeted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        charge(layout.size() as i64);
        System.alloc(layout)
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        charge(layout.size() as i64);
        System.alloc_zeroed(layout)
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        charge(-(layout.size() as i64));
        System.dealloc(pointer, layout)
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        charge(size as i64 - layout.size() as i64);
        System.realloc(pointer, layout, size)
    }
}

/// The work's value; None if it took more memory or time, or no thread could be had.
pub fn run<T, F>(bytes: usize, time: Duration, work: F) -> Option<T>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    let shared = Arc::new(Shared {
        stage: Mutex::new(Stage::Working),
        changed: Condvar::new(),
        abandoned: AtomicBool::new(false),
    });
    let of_thread = shared.clone();
    let spawned = std::thread::Builder::new().stack_size(8 << 20).spawn(move || {
        let stop: &dyn Stop = &*of_thread;
        // SAFETY: only the lifetime is taken away; STOP is unset before `of_thread` goes.
        let stop = unsafe { std::mem::transmute::<&dyn Stop, &'static dyn Stop>(stop) };
        LEFT.with(|left| left.set(bytes as i64));
        STOP.with(|cell| cell.set(Some(stop as *const dyn Stop)));
        let value = work();
        STOP.with(|cell| cell.set(None));
        *of_thread.stage.lock().unwrap_or_else(PoisonError::into_inner) = Stage::Done(value);
        of_thread.changed.notify_all();
    });
    let thread = spawned.ok()?;
    let stage = shared.stage.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut stage, _) = shared
        .changed
        .wait_timeout_while(stage, time, |stage| matches!(stage, Stage::Working))
        .unwrap_or_else(PoisonError::into_inner);
    match std::mem::replace(&mut *stage, Stage::Spent) {
        Stage::Done(value) => {
            drop(stage);
            let _ = thread.join();
            Some(value)
        }
        _ => {
            shared.abandoned.store(true, Ordering::Relaxed);
            None
        }
    }
}
