//! The example `log_router` on odd inputs: not one byte may be lost, changed or doubled.
#![cfg(feature = "memory")]

#[path = "../examples/common/mod.rs"]
mod common;
#[allow(dead_code, reason = "a test reads neither standard input nor the sample")]
#[path = "../examples/log_router/router/mod.rs"]
mod router;

use std::fs;
use std::path::{Path, PathBuf};

use router::{Input, Job, Report};

/// File names and contents: terminators, odd bytes, words that are none.
fn inputs() -> Vec<(&'static str, Vec<u8>)> {
    let mut large = vec![b'x'; 9_000_000];
    large.extend_from_slice(b" failure\n");
    vec![
        ("a.b.log", b"an ERROR\r\nno_error here\r\n\r\nwarnings, errors\r\n".to_vec()),
        ("bytes.log", b"\xff\xfe warn\xe9 fail\n\0\0fatal\0\n\xe9error\n\r\r\n".to_vec()),
        (
            "linux.log",
            b"notice before error\nerror before notice\nTRACE\ndebug-info\nlast, critical".to_vec(),
        ),
        ("empty.log", Vec::new()),
        ("newline", b"\n".to_vec()),
        ("same.log", b"first\n".to_vec()),
        ("deeper/same.log", b"Failed, second\n".to_vec()),
        ("large.log", large),
    ]
}

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("mq-log-router-{}", std::process::id()));
        fs::create_dir_all(folder.join("in/deeper")).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder that stays behind is no failure of what is tested.
        let _ = fs::remove_dir_all(&self.0);
    }
}

async fn route(folder: &Path) -> Report {
    let write = |(name, text): &(&str, Vec<u8>)| {
        let path = folder.join("in").join(name);
        fs::write(&path, text).unwrap();
        Input::File(path)
    };
    let inputs = inputs().iter().map(write).collect();
    let client = common::connect("odd-").await.unwrap();
    let job = Job { inputs, workers: 3, out: Some(folder.join("out")) };
    let report = router::run(&client, job).await.unwrap();
    client.close().await.unwrap();
    report
}

fn queue(folder: &Path, name: &str) -> Vec<u8> {
    fs::read(folder.join("out/queues").join(name)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_inputs_come_back_byte_for_byte() {
    let folder = Folder::new();
    let report = route(&folder.0).await;

    let names =
        ["a.b.log", "bytes.log", "linux.log", "empty.log", "newline", "same.log", "2-same.log", "large.log"];
    let mut all = Vec::new();
    for ((_, sent), name) in inputs().iter().zip(names) {
        let came = fs::read(folder.0.join("out/files").join(name)).unwrap();
        assert!(came == *sent, "{name}: {} bytes came, {} were sent", came.len(), sent.len());
        all.extend_from_slice(sent);
    }
    for name in ["everything", "archive", "mirror"] {
        assert!(queue(&folder.0, name) == all, "{name}");
    }

    let lines = |name| report.queues.iter().find(|q| q.queue == name).unwrap().lines;
    let counts = ["everything", "errors", "linux", "warnings", "unclassified"].map(lines);
    assert_eq!(counts, [17, 7, 5, 1, 6], "{report}");
    assert!(report.queues.iter().all(|q| q.repeats == 0), "{report}");
    assert_eq!(queue(&folder.0, "linux"), inputs()[2].1);
    let errors = queue(&folder.0, "errors");
    assert!(errors.starts_with(b"an ERROR\r\n\0\0fatal\0\n\xe9error\nerror before notice\nlast, critical"));
    for name in ["errors-at-any-depth", "errors-by-name"] {
        assert!(queue(&folder.0, name) == errors, "{name}");
    }
}
