//! What a backend says about itself is true.

use mq_core::{Ability, Atomicity, Kind, Order, Requirements, Sharing, Support};

use crate::context::Ctx;
use crate::outcome::{Failed, Outcome, check, check_eq};
use crate::scenario::scenarios;

scenarios! {
    "capability";
    explain_has_a_line_for_each_ability [];
    emulations_tell_cost_and_caveat [];
    what_is_refused_is_refused_before_any_io [];
    a_demand_that_is_met_connects [];
    a_demand_that_is_not_met_names_what_is_missing [];
    limits_are_sound [];
    the_portable_minimum_is_there [];
    the_backend_tells_its_name_and_product [];
}

async fn explain_has_a_line_for_each_ability(cx: Ctx) -> Outcome {
    let text = cx.client.explain();
    for ability in Ability::ALL {
        let line = text.lines().find(|l| l.starts_with(ability.label()));
        let line = line.ok_or_else(|| Failed::new(format!("no line for `{}`:\n{text}", ability.label())))?;
        let support = cx.client.capabilities().support(*ability).to_string();
        check!(line.contains(&support), "`{line}` does not say {support}");
    }
    Ok(())
}

async fn emulations_tell_cost_and_caveat(cx: Ctx) -> Outcome {
    for ability in Ability::ALL {
        match cx.client.capabilities().support(*ability) {
            Support::Emulated { cost, caveat } => {
                check!(!cost.is_empty() && !caveat.is_empty(), "`{}` hides its cost", ability.label());
            }
            Support::Conditional { on } => {
                check!(!on.is_empty(), "`{}` hides its condition", ability.label())
            }
            _ => {}
        }
    }
    Ok(())
}

async fn what_is_refused_is_refused_before_any_io(cx: Ctx) -> Outcome {
    for ability in Ability::ALL {
        if !cx.can(*ability) {
            crate::refusal::refused(&cx, *ability).await?;
        }
    }
    Ok(())
}

async fn a_demand_that_is_met_connects(cx: Ctx) -> Outcome {
    let can = *cx.client.capabilities();
    let offered = Ability::ALL.iter().filter(|a| can.support(**a).is_offered());
    let demand = offered.fold(Requirements::new(), |r, a| r.ability(*a));
    let demand = demand.allow_conditional().atomicity(can.atomicity).sharing(can.sharing);
    let client = cx.connect(cx.options().require(demand)).await?;
    client.close().await?;
    Ok(())
}

async fn a_demand_that_is_not_met_names_what_is_missing(cx: Ctx) -> Outcome {
    let can = *cx.client.capabilities();
    let other = if can.sharing == Sharing::PerMessage { Sharing::PerPartition } else { Sharing::PerMessage };
    let mut demands = vec![(Requirements::new().sharing(other), "sharing")];
    for ability in Ability::ALL {
        if !cx.can(*ability) {
            demands.push((Requirements::new().ability(*ability), ability.label()));
        }
    }
    if can.atomicity == Atomicity::SendsThenAcks {
        demands.push((Requirements::new().atomicity(Atomicity::SendsWithAcks), "atomic"));
    }
    for (demand, word) in demands {
        let Err(failed) = cx.connect(cx.options().require(demand)).await else {
            return Err(Failed::new(format!("a demand for `{word}` connected")));
        };
        check_eq!(failed.kind, Some(Kind::Unsupported), "a demand for `{word}`: {failed}");
        check!(failed.text.contains(word), "the refusal does not name `{word}`: {failed}");
    }
    Ok(())
}

async fn limits_are_sound(cx: Ctx) -> Outcome {
    let limits = cx.client.capabilities().limits;
    check!(limits.max_body >= 1_000_000, "bodies of {} bytes at most", limits.max_body);
    check!(limits.max_delay.is_none_or(|d| !d.is_zero()), "delays of {:?} at most", limits.max_delay);
    check!(limits.max_hold.is_none_or(|d| d.as_secs() >= 1), "holds of {:?} at most", limits.max_hold);
    check!(limits.max_priority <= 9, "priorities up to {}", limits.max_priority);
    check!(limits.delay_tick <= cx.patience.tick.max(limits.delay_tick), "a tick of {:?}", limits.delay_tick);
    Ok(())
}

async fn the_portable_minimum_is_there(cx: Ctx) -> Outcome {
    for ability in [Ability::Queues, Ability::Exchanges, Ability::Topics, Ability::Delay, Ability::Ttl] {
        check!(cx.can(ability), "`{}` is not offered", ability.label());
    }
    for ability in [Ability::Retry, Ability::Transactions, Ability::HalfMessages, Ability::Browse] {
        check!(cx.can(ability), "`{}` is not offered", ability.label());
    }
    check!(cx.client.capabilities().order != Order::None, "no order at all");
    Ok(())
}

async fn the_backend_tells_its_name_and_product(cx: Ctx) -> Outcome {
    check!(!cx.client.backend().is_empty() && !cx.client.product().is_empty(), "a nameless backend");
    check!(!format!("{:?}", cx.client).contains("password"), "the client shows a password");
    Ok(())
}
