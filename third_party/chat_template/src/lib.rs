//! Chat templates for C: compile, render, free. Nothing unwinds out of here.
// SPDX-License-Identifier: Apache-2.0
use minijinja::{Environment, ErrorKind, Value};
use std::any::Any;
use std::io::{self, Write};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

mod budget;
mod python;

const OK: i32 = 0;
const FAILED: i32 = 1; // the template does not parse, or does something that is an error
const RAISED: i32 = 2; // the template called raise_exception
const LIMIT: i32 = 3; // too many steps, or too long a text

/// Put in front of a raised text, to tell it from minijinja's own errors.
pub(crate) const RAISE_MARK: &str = "\u{1}raised:";

struct Shared {
    environment: Environment<'static>,
    source: String,
}

pub struct Template {
    shared: Arc<Shared>,
    spent: AtomicBool, // it took too much once, and is not run again
}

/// What a call hands back; `text` is the rendering or the error and goes to hone_chat_text_free.
#[repr(C)]
pub struct Answer {
    status: i32,
    line: u32, // of the template, from 1; 0 if unknown
    text: *mut u8,
    size: usize,
}

unsafe impl Send for Answer {} // it owns its text

/// What one rendering may take.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Limits {
    steps: u64,
    milliseconds: u64,
    bytes: usize, // of memory
    text: usize,  // bytes of the rendering
}

impl Answer {
    fn new(status: i32, line: usize, text: String) -> Answer {
        let bytes = text.into_bytes().into_boxed_slice();
        let size = bytes.len();
        let text = Box::into_raw(bytes) as *mut u8;
        Answer { status, line: line as u32, text, size }
    }

    fn from_error(error: &minijinja::Error) -> Answer {
        let line = error.line().unwrap_or(0);
        let detail = error.detail().unwrap_or("").to_string();
        if let Some(raised) = detail.strip_prefix(RAISE_MARK) {
            return Answer::new(RAISED, line, raised.to_string());
        }
        let status = if error.kind() == ErrorKind::OutOfFuel { LIMIT } else { FAILED };
        let mut text = error.kind().to_string();
        if !detail.is_empty() {
            text = format!("{text}: {detail}");
        }
        Answer::new(status, line, text)
    }

    fn from_panic(panic: Box<dyn Any + Send>) -> Answer {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()))
            .unwrap_or_default();
        Answer::new(FAILED, 0, format!("the template engine gave up: {text}"))
    }
}

/// A text that refuses to grow beyond a size.
struct Bounded {
    text: Vec<u8>,
    most: usize,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.most - self.text.len() {
            return Err(io::Error::new(io::ErrorKind::Other, "too long"));
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(|_| {})));
}

unsafe fn text_of<'a>(text: *const u8, size: usize) -> Result<&'a str, std::str::Utf8Error> {
    if size == 0 {
        return Ok("");
    }
    std::str::from_utf8(std::slice::from_raw_parts(text, size))
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    // As transformers sets jinja2 up.
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_recursion_limit(100);
    python::install(&mut environment);
    environment
}

/// # Safety
/// `source` is `size` bytes; `handle` is written when the status is 0.
#[no_mangle]
pub unsafe extern "C" fn hone_chat_template_compile(
    source: *const u8,
    size: usize,
    limits: Limits,
    handle: *mut *mut Template,
) -> Answer {
    quiet_panics();
    let made = catch_unwind(AssertUnwindSafe(|| {
        let source = match text_of(source, size) {
            // This minijinja (the last for rustc 1.63) has no negative steps.
            Ok(source) => source.replace("[::-1]", "|reverse"),
            Err(error) => return Answer::new(FAILED, 0, format!("not UTF-8: {error}")),
        };
        // Compiling computes constants: "'x' * 99999999999" must not take the machine either.
        let work = move || {
            let work = AssertUnwindSafe(|| {
                let shared = Shared { environment: environment(), source };
                let parsed = shared.environment.template_from_named_str("chat", &shared.source);
                match parsed.map(|_| ()) {
                    Ok(()) => Ok(shared),
                    Err(error) => Err(Answer::from_error(&error)),
                }
            });
            catch_unwind(work).unwrap_or_else(|panic| Err(Answer::from_panic(panic)))
        };
        let time = Duration::from_millis(limits.milliseconds);
        let shared = match budget::run(limits.bytes, time, work) {
            Some(Ok(shared)) => shared,
            Some(Err(answer)) => return answer,
            None => return Answer::new(LIMIT, 0, "too much memory or time".into()),
        };
        let template = Template { shared: Arc::new(shared), spent: AtomicBool::new(false) };
        *handle = Box::into_raw(Box::new(template));
        Answer::new(OK, 0, String::new())
    }));
    made.unwrap_or_else(Answer::from_panic)
}

/// # Safety
/// `handle` is of hone_chat_template_compile; `variables` is `size` bytes of a JSON object.
#[no_mangle]
pub unsafe extern "C" fn hone_chat_template_render(
    handle: *const Template,
    variables: *const u8,
    size: usize,
    limits: Limits,
) -> Answer {
    let made = catch_unwind(AssertUnwindSafe(|| {
        let template = &*handle;
        let json = match text_of(variables, size) {
            Ok(json) => json.to_string(),
            Err(error) => return Answer::new(FAILED, 0, format!("not UTF-8: {error}")),
        };
        let spent = || Answer::new(LIMIT, 0, "too much memory or time".into());
        if template.spent.load(Ordering::Relaxed) {
            return spent();
        }
        let shared = template.shared.clone();
        let work = move || {
            let work = AssertUnwindSafe(|| render(&shared, &json, &limits));
            catch_unwind(work).unwrap_or_else(Answer::from_panic)
        };
        match budget::run(limits.bytes, Duration::from_millis(limits.milliseconds), work) {
            Some(answer) => answer,
            None => {
                template.spent.store(true, Ordering::Relaxed);
                spent()
            }
        }
    }));
    made.unwrap_or_else(Answer::from_panic)
}

fn render(template: &Shared, json: &str, limits: &Limits) -> Answer {
    let context: Value = match serde_json::from_str(json) {
        Ok(context) => context,
        Err(error) => return Answer::new(FAILED, 0, format!("the variables: {error}")),
    };
    let mut environment = template.environment.clone();
    environment.set_fuel(Some(limits.steps));
    let mut out = Bounded { text: Vec::new(), most: limits.text };
    let done = environment
        .template_from_named_str("chat", &template.source)
        .and_then(|parsed| parsed.render_to_write(context, &mut out).map(|_| ()));
    match done {
        Ok(()) => Answer::new(OK, 0, String::from_utf8_lossy(&out.text).into_owned()),
        Err(error) if error.kind() == ErrorKind::WriteFailure => {
            Answer::new(LIMIT, 0, format!("more than {} bytes of text", limits.text))
        }
        Err(error) => Answer::from_error(&error),
    }
}

/// # Safety
/// `handle` is of hone_chat_template_compile, and not used again.
#[no_mangle]
pub unsafe extern "C" fn hone_chat_template_free(handle: *mut Template) {
    if !handle.is_null() {
        let _ = catch_unwind(AssertUnwindSafe(|| drop(Box::from_raw(handle))));
    }
}

/// # Safety
/// `text` and `size` are of one Answer, and not used again.
#[no_mangle]
pub unsafe extern "C" fn hone_chat_text_free(text: *mut u8, size: usize) {
    if !text.is_null() {
        drop(Box::from_raw(std::slice::from_raw_parts_mut(text, size) as *mut [u8]));
    }
}
