use std::time::Duration;

use super::{
    Choice, DayTime, Days, Decision, EventId, LookPolicy, LookSettings, Moment, Observation, Phase,
    Refusal, Schedule,
};
use crate::change::{AreaChange, Cause, Change};
use crate::quality::{Finding, Measures, Quality};

fn policy(settings: &str) -> LookPolicy {
    let settings: LookSettings = serde_json::from_str(settings).expect(settings);
    LookPolicy::new(settings, &["gate", "path"], EventId(1)).expect("good settings")
}

fn at(milliseconds: u64) -> Moment {
    Moment {
        steady: Duration::from_millis(milliseconds),
        unix: Some(1_700_000_000 + milliseconds as i64 / 1000),
    }
}

fn change(gate: bool, path: bool, unsteady_permille: u32) -> Change {
    let area = |active: bool| AreaChange {
        active,
        ..AreaChange::default()
    };
    Change {
        cause: if gate || path {
            Cause::Movement
        } else {
            Cause::None
        },
        whole: area(gate || path),
        zones: vec![area(gate), area(path)],
        unsteady_permille,
        ..Change::default()
    }
}

fn quality(findings: Vec<Finding>) -> Quality {
    Quality {
        measures: Measures::default(),
        findings,
    }
}

fn dark() -> Quality {
    quality(vec![Finding::Dark {
        mean: 12,
        needs: 30,
    }])
}

fn step(policy: &mut LookPolicy, change: &Change, quality: &Quality, now: u64) -> Vec<Decision> {
    policy
        .step(Observation::Picture { change, quality }, at(now))
        .to_vec()
}

fn look(event: u64, phase: Phase, trigger: usize, picture: Choice) -> Decision {
    Decision::Look {
        event: EventId(event),
        phase,
        trigger,
        picture,
    }
}

const GATE: &str = r#"{"triggers": [{"name": "gate", "on": {"change": {"zones": ["gate"], "dwell_ms": 1000}}}], "update_ms": 0}"#;

#[test]
fn a_zone_must_be_active_for_the_dwell() {
    let mut policy = policy(GATE);
    for now in [0, 400, 800] {
        assert_eq!(
            step(&mut policy, &change(true, false, 0), &quality(vec![]), now),
            []
        );
    }
    step(
        &mut policy,
        &change(false, true, 0),
        &quality(vec![]),
        1_000,
    );
    assert_eq!(
        step(
            &mut policy,
            &change(true, false, 0),
            &quality(vec![]),
            1_200
        ),
        []
    );
    let decisions = step(
        &mut policy,
        &change(true, false, 0),
        &quality(vec![]),
        2_200,
    );
    assert_eq!(decisions, [look(1, Phase::New, 0, Choice::This)]);
    assert_eq!(
        step(
            &mut policy,
            &change(true, false, 0),
            &quality(vec![]),
            2_400
        ),
        []
    );
}

#[test]
fn an_event_begins_is_updated_and_ends_under_one_number() {
    let mut policy = policy(
        r#"{"triggers": [{"name": "gate", "on": {"change": {"zones": []}}, "cooldown_ms": 0}],
            "update_ms": 4000, "quiet_ms": 5000}"#,
    );
    let mut told = Vec::new();
    for now in (0..20_000).step_by(200) {
        told.extend(step(
            &mut policy,
            &change(now < 9_000, false, 0),
            &quality(vec![]),
            now,
        ));
    }
    let expected = [
        look(1, Phase::New, 0, Choice::This),
        look(1, Phase::Update, 0, Choice::This),
        look(1, Phase::Update, 0, Choice::This),
        Decision::End { event: EventId(1) },
    ];
    assert_eq!(told, expected);
    let again = step(
        &mut policy,
        &change(true, false, 0),
        &quality(vec![]),
        30_000,
    );
    assert_eq!(again, [look(2, Phase::New, 0, Choice::This)]);
}

#[test]
fn the_cooldown_says_how_long_it_lasts() {
    let mut policy = policy(
        r#"{"triggers": [{"name": "bell", "on": {"message": {"topic": "bell"}}, "cooldown_ms": 20000}], "quiet_ms": 1000}"#,
    );
    let ring = |policy: &mut LookPolicy, now| {
        policy
            .step(Observation::Message { topic: "bell" }, at(now))
            .to_vec()
    };
    assert_eq!(ring(&mut policy, 0), []);
    assert_eq!(
        step(&mut policy, &change(false, false, 0), &quality(vec![]), 100).len(),
        1
    );
    let refused = ring(&mut policy, 8_100);
    assert!(refused.contains(&Decision::Refused {
        trigger: 0,
        reason: Refusal::Cooldown {
            left: Duration::from_secs(12)
        }
    }));
    assert_eq!(
        Refusal::Cooldown {
            left: Duration::from_secs(12)
        }
        .to_string(),
        "cooldown 12 s left"
    );
    assert_eq!(
        policy.step(Observation::Message { topic: "other" }, at(9_000)),
        []
    );
}

#[test]
fn the_best_picture_is_taken_when_none_is_steady() {
    let mut policy = policy(GATE);
    step(&mut policy, &change(true, false, 900), &quality(vec![]), 0);
    let mut told = Vec::new();
    // Unsteady: 300 at first, least at 1400, more later.
    for (now, unsteady) in [
        (1_000, 300),
        (1_200, 200),
        (1_400, 100),
        (1_600, 250),
        (1_800, 400),
        (2_000, 300),
    ] {
        told.push(step(
            &mut policy,
            &change(true, false, unsteady),
            &quality(vec![]),
            now,
        ));
    }
    assert_eq!(
        told[..3],
        [[Decision::Keep], [Decision::Keep], [Decision::Keep]]
    );
    assert_eq!(
        told[3..],
        [vec![], vec![], vec![look(1, Phase::New, 0, Choice::Kept)]]
    );
}

#[test]
fn a_steady_and_good_picture_is_taken_at_once() {
    let mut policy = policy(GATE);
    step(&mut policy, &change(true, false, 900), &quality(vec![]), 0);
    assert_eq!(
        step(
            &mut policy,
            &change(true, false, 50),
            &quality(vec![]),
            1_000
        ),
        [Decision::Keep]
    );
    let decisions = step(
        &mut policy,
        &change(true, false, 5),
        &quality(vec![]),
        1_200,
    );
    assert_eq!(decisions, [look(1, Phase::New, 0, Choice::This)]);
}

#[test]
fn a_bad_picture_is_refused_with_its_reason() {
    let mut policy = policy(GATE);
    step(&mut policy, &change(true, false, 0), &dark(), 0);
    step(&mut policy, &change(true, false, 0), &dark(), 1_000);
    let decisions = step(&mut policy, &change(true, false, 0), &dark(), 2_000);
    let [Decision::Refused { trigger: 0, reason }] = &decisions[..] else {
        panic!("{decisions:?}")
    };
    assert!(
        reason.to_string().starts_with("Too dark to read"),
        "{reason}"
    );
}

#[test]
fn a_trigger_may_take_any_picture() {
    let mut policy = policy(
        r#"{"triggers": [{"name": "bell", "on": {"pin": {"pin": "bell", "edge": "rising"}}, "settle_ms": 0, "any_quality": true}]}"#,
    );
    policy.step(
        Observation::Pin {
            name: "bell",
            high: false,
        },
        at(0),
    );
    policy.step(
        Observation::Pin {
            name: "bell",
            high: true,
        },
        at(10),
    );
    let decisions = step(&mut policy, &change(false, false, 0), &dark(), 200);
    assert_eq!(decisions, [look(1, Phase::New, 0, Choice::This)]);
    // The level it already has is no edge.
    assert_eq!(
        policy.step(
            Observation::Pin {
                name: "bell",
                high: true
            },
            at(300)
        ),
        []
    );
}

#[test]
fn no_picture_at_all_is_refused_in_the_end() {
    let mut policy =
        policy(r#"{"triggers": [{"name": "bell", "on": {"message": {"topic": "bell"}}}]}"#);
    policy.step(Observation::Message { topic: "bell" }, at(0));
    assert_eq!(policy.step(Observation::Tick, at(4_900)), []);
    let refused = Decision::Refused {
        trigger: 0,
        reason: Refusal::NoPicture,
    };
    assert_eq!(policy.step(Observation::Tick, at(5_000)), [refused]);
}

#[test]
fn triggers_close_together_are_one_event() {
    let mut policy = policy(
        r#"{"triggers": [
            {"name": "gate", "on": {"change": {"zones": ["gate"]}}, "priority": 1},
            {"name": "path", "on": {"change": {"zones": ["path"]}}, "priority": 5},
            {"name": "bell", "on": {"message": {"topic": "bell"}}}]}"#,
    );
    let decisions = step(&mut policy, &change(true, true, 0), &quality(vec![]), 0);
    let merged = |trigger| Decision::Merged {
        trigger,
        event: EventId(1),
    };
    assert_eq!(decisions, [merged(0), look(1, Phase::New, 1, Choice::This)]);
    assert_eq!(
        policy.step(Observation::Message { topic: "bell" }, at(1_000)),
        [merged(2)]
    );
}

#[test]
fn periods_begin_after_the_start() {
    let mut policy = policy(
        r#"{"triggers": [{"name": "timer", "on": {"every": {"ms": 60000}}, "cooldown_ms": 0}], "quiet_ms": 1000}"#,
    );
    let mut looks = Vec::new();
    for second in 100..400 {
        let decisions = step(
            &mut policy,
            &change(false, false, 0),
            &quality(vec![]),
            second * 1000,
        );
        looks.extend(
            decisions
                .iter()
                .filter(|decision| matches!(decision, Decision::Look { .. }))
                .map(|_| second),
        );
    }
    assert_eq!(looks, [120, 180, 240, 300, 360]);
}

#[test]
fn a_time_of_day_comes_once_a_day() {
    // 1_700_000_000 is 22:13:20 UTC.
    let mut policy = policy(
        r#"{"triggers": [{"name": "morning", "on": {"daily": {"at": "00:14"}}, "cooldown_ms": 0}],
            "utc_offset_minutes": 120, "quiet_ms": 1000}"#,
    );
    let mut looks = Vec::new();
    for minute in 0..3000u64 {
        let decisions = step(
            &mut policy,
            &change(false, false, 0),
            &quality(vec![]),
            minute * 60_000,
        );
        looks.extend(
            decisions
                .iter()
                .filter(|decision| matches!(decision, Decision::Look { .. }))
                .map(|_| minute),
        );
    }
    assert_eq!(looks, [1, 1441, 2881]);
}

#[test]
fn a_schedule_holds_on_its_days_and_hours() {
    let schedule = |days: &str, from: &str, to: &str| Schedule {
        days: days.parse().expect(days),
        from: from.parse().expect(from),
        to: to.parse().expect(to),
    };
    // Day 0 was a Thursday; hours of it.
    let holds = |schedule: Schedule, hours: i64| schedule.holds(hours * 3600);
    let work = schedule("mon-fri", "08:00", "18:00");
    assert!(holds(work, 8) && holds(work, 17) && !holds(work, 18) && !holds(work, 7));
    assert!(!holds(work, 48 + 12) && holds(work, 24 + 12) && holds(work, -24 + 12));
    let night = schedule("fri", "22:00", "06:00");
    assert!(
        !holds(night, 23)
            && holds(night, 24 + 23)
            && holds(night, 48 + 5)
            && !holds(night, 48 + 23)
    );
    assert!(holds(schedule("sat-mon", "00:00", "24:00"), 96 + 3));
}

#[test]
fn outside_the_schedule_and_without_a_clock_triggers_are_refused() {
    let mut policy = policy(
        r#"{"triggers": [{"name": "gate", "on": {"change": {}}, "schedule": {"from": "08:00", "to": "18:00"}}]}"#,
    );
    let decisions = step(&mut policy, &change(true, false, 0), &quality(vec![]), 0);
    assert_eq!(
        decisions,
        [Decision::Refused {
            trigger: 0,
            reason: Refusal::OutsideSchedule
        }]
    );
    step(&mut policy, &change(false, false, 0), &quality(vec![]), 200);
    let now = Moment {
        steady: Duration::from_millis(400),
        unix: None,
    };
    let seen = Observation::Picture {
        change: &change(true, false, 0),
        quality: &quality(vec![]),
    };
    assert_eq!(
        policy.step(seen, now),
        [Decision::Refused {
            trigger: 0,
            reason: Refusal::NoClock
        }]
    );
}

#[test]
fn settings_that_cannot_work_say_why() {
    let cases = [
        (
            r#"{"triggers": [{"name": "a", "on": {"change": {"zones": ["door"]}}}]}"#,
            "no zone `door`; the zones are: gate, path",
        ),
        (
            r#"{"triggers": [{"name": "a", "on": {"every": {"ms": 5}}}]}"#,
            "trigger `a`: ms is 5; the limits are 100",
        ),
        (
            r#"{"triggers": [{"name": "a", "on": {"message": {"topic": ""}}}]}"#,
            "the topic has 0 bytes",
        ),
        (r#"{"utc_offset_minutes": 900}"#, "-840 to 840"),
        (r#"{"quiet_ms": 0}"#, "look: quiet_ms is 0"),
    ];
    for (text, expected) in cases {
        let settings: LookSettings = serde_json::from_str(text).expect(text);
        let error = LookPolicy::new(settings, &["gate", "path"], EventId(0))
            .expect_err(text)
            .to_string();
        assert!(error.contains(expected), "{error}");
    }
    for (text, expected) in [("8:00", "07:30"), ("24:01", "24:00"), ("aa:bb", "aa:bb")] {
        assert!(
            text.parse::<DayTime>()
                .expect_err(text)
                .to_string()
                .contains(expected)
        );
    }
    assert!("mon-fry".parse::<Days>().is_err() && "".parse::<Days>().is_err());
}
