use std::collections::BTreeMap;

use super::*;

fn sleeper() -> Identity {
    let program = Program {
        command: vec!["sleep".into(), "60".into()],
        env: BTreeMap::from([("PATH".into(), "/usr/bin:/bin".into())]),
        dir: std::env::temp_dir(),
        user: None,
        log: "/dev/null".into(),
        process: None,
    };
    spawn(&program).unwrap()
}

fn becomes(process: &Identity, life: Life) {
    let soon = Deadline::after(Duration::from_secs(10));
    poll("life", soon, || Ok(if process.life() == life { Ok(()) } else { Err("other".into()) })).unwrap();
}

#[test]
fn a_name_with_parentheses_does_not_shift_the_fields() {
    let line = "77 (a) b (c)) S 1 77 77 0 -1 4194304 1 0 0 0 3 1 0 0 20 0 1 0 123456 1000 10";
    let stat = Stat::parse(line).unwrap();
    assert_eq!((stat.state, stat.started), ('S', 123_456));
    assert!(Stat::parse("77 (short) S 1").is_none());
}

#[test]
fn a_zombie_is_gone() {
    assert_eq!(Stat { state: 'Z', started: 1 }.life(), Life::Gone);
}

#[test]
fn a_reused_pid_is_another_process() {
    let me = Identity::of(std::process::id()).unwrap();
    assert_eq!(me.life(), Life::Running);
    let other_start = Identity { started: me.started + 1, ..me.clone() };
    let other_boot = Identity { boot: "other".into(), ..me };
    for other in [other_start, other_boot] {
        assert_eq!(other.life(), Life::Gone);
        // A signal that was sent all the same would end this test.
        assert!(other.signal(Signal::KILL).unwrap_err().to_string().contains("has ended"));
        other.end(Duration::ZERO).unwrap();
    }
}

#[test]
fn a_process_is_halted_goes_on_and_ends() {
    let process = sleeper();
    process.signal(Signal::STOP).unwrap();
    becomes(&process, Life::Halted);
    process.signal(Signal::CONT).unwrap();
    becomes(&process, Life::Running);
    process.signal(Signal::STOP).unwrap();
    becomes(&process, Life::Halted);
    process.end(Duration::from_secs(10)).unwrap();
    assert_eq!(process.life(), Life::Gone);
    process.end(Duration::ZERO).unwrap();
}
