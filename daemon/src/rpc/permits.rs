//! Which scope each rpc needs: one table, and whatever is not in it is refused.
//!
//! What a `read` key of one tenant may see of figures that are the daemon's as a whole was decided so:
//!
//! - Traces are its tenant's alone, in lists, exports and by id.
//! - Budgets are those of everybody, of its tenant and of its key.
//! - Statistics of models, policies, their evaluations and models are sums over all tenants, and
//!   shown: routing learns from everybody, and whoever routes must see how the models do. They hold no
//!   request, no text and no tenant's name. Task types and versions of policies are in them.
//! - The learning report leaves out the sources of feedback and the audit log of policies, which name who
//!   said and did what; store information leaves out where the state folder lies. `admin` sees both.
//!
//! `train` acts on policies, which all tenants share; traces that it brings in are its tenant's. Deleting
//! traces, changing models, budgets and keys, and the audit log need `admin`, which sees all tenants.

use crate::keys::Scope;

/// What a call needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing: whoever balances load has no key.
    Nothing,
    /// Any key.
    AnyKey,
    /// A key with this scope.
    Scope(Scope),
    /// More than anybody has: nobody said what it needs.
    Unknown,
}

const SERVICE_PREFIX: &str = "/pointsman.v1.";

/// Every rpc of `pointsman.v1` with the scope that it needs.
pub const TABLE: [(&str, Scope); 41] = [
    ("RouterService/Route", Scope::Route),
    ("RouterService/RouteStream", Scope::Route),
    ("RouterService/Decide", Scope::Route),
    ("RouterService/ReportOutcomes", Scope::Route),
    ("FeedbackService/SubmitFeedback", Scope::Feedback),
    ("FeedbackService/StreamFeedback", Scope::Feedback),
    ("StatsService/ListModelStats", Scope::Read),
    ("StatsService/ListTraces", Scope::Read),
    ("StatsService/GetTrace", Scope::Read),
    ("StatsService/ExportTraces", Scope::Read),
    ("StatsService/GetReport", Scope::Read),
    ("StatsService/GetStoreInfo", Scope::Read),
    ("StatsService/ImportTraces", Scope::Train),
    ("StatsService/DeleteTraces", Scope::Admin),
    ("PolicyService/ListPolicies", Scope::Read),
    ("PolicyService/GetPolicy", Scope::Read),
    ("PolicyService/Train", Scope::Train),
    ("PolicyService/Evaluate", Scope::Train),
    ("PolicyService/Promote", Scope::Train),
    ("PolicyService/Rollback", Scope::Train),
    ("PolicyService/SetShadow", Scope::Train),
    ("PolicyService/InstallPolicy", Scope::Train),
    ("AdminService/ListModels", Scope::Read),
    ("AdminService/GetBudget", Scope::Read),
    ("AdminService/ListBudgets", Scope::Read),
    ("AdminService/SetBudget", Scope::Admin),
    ("AdminService/RemoveBudget", Scope::Admin),
    ("AdminService/AdjustBudget", Scope::Admin),
    ("AdminService/ListTransfers", Scope::Admin),
    ("AdminService/VerifyBudgets", Scope::Admin),
    ("AdminService/RegisterModel", Scope::Admin),
    ("AdminService/EnableModel", Scope::Admin),
    ("AdminService/DisableModel", Scope::Admin),
    ("AdminService/RemoveModel", Scope::Admin),
    ("AdminService/Drain", Scope::Admin),
    ("AdminService/CreateKey", Scope::Admin),
    ("AdminService/ListKeys", Scope::Admin),
    ("AdminService/RevokeKey", Scope::Admin),
    ("AdminService/RotateKey", Scope::Admin),
    ("AdminService/ListAudit", Scope::Admin),
    ("AdminService/VerifyAudit", Scope::Admin),
];

/// What a call of this path needs.
#[must_use]
pub fn needs(path: &str) -> Needs {
    if path.starts_with("/grpc.health.v1.Health/") {
        return Needs::Nothing;
    }
    if path.starts_with("/grpc.reflection.v1.ServerReflection/")
        || path.starts_with("/grpc.reflection.v1alpha.ServerReflection/")
    {
        return Needs::AnyKey;
    }
    let rpc = path.strip_prefix(SERVICE_PREFIX);
    let found = rpc.and_then(|rpc| TABLE.iter().find(|(known, _)| *known == rpc));
    found.map_or(Needs::Unknown, |(_, scope)| Needs::Scope(*scope))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message as _;

    use super::*;

    #[test]
    fn every_rpc_is_in_the_table_and_nothing_else_is() {
        let set = prost_types::FileDescriptorSet::decode(pointsman_proto::FILE_DESCRIPTOR_SET).unwrap();
        let own = set.file.iter().filter(|file| file.package() == "pointsman.v1");
        let served: BTreeSet<String> = own
            .flat_map(|file| &file.service)
            // Users serve these to the daemon, not the daemon to its callers.
            .filter(|service| !service.name().ends_with("Backend"))
            .flat_map(|service| service.method.iter().map(move |rpc| format!("{}/{}", service.name(), rpc.name())))
            .collect();
        let known: BTreeSet<String> = TABLE.iter().map(|(rpc, _)| (*rpc).to_owned()).collect();
        assert_eq!(served, known);
        assert_eq!(known.len(), TABLE.len(), "an rpc stands twice in the table");
    }

    #[test]
    fn what_is_not_in_the_table_needs_more_than_anybody_has() {
        let check = |path: &str, expected: Needs| assert_eq!(needs(path), expected, "{path}");
        check("/pointsman.v1.RouterService/Route", Needs::Scope(Scope::Route));
        check("/grpc.health.v1.Health/Watch", Needs::Nothing);
        check("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Needs::AnyKey);
        for unknown in [
            "",
            "/",
            "/pointsman.v1.RouterService/Rout",
            "/pointsman.v1.RouterService/Route/",
            "pointsman.v1.RouterService/Route",
            "/pointsman.v2.RouterService/Route",
            "/grpc.health.v1.HealthX/Check",
        ] {
            check(unknown, Needs::Unknown);
        }
    }
}
