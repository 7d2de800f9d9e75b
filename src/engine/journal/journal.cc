#include "engine/journal/journal.h"

#include <algorithm>
#include <exception>
#include <tuple>

#include "base/fault.h"
#include "base/log.h"
#include "base/units.h"

namespace virga::engine {
namespace {

constexpr std::string_view prefix = "/journal/";

struct Row {
  std::string id;
  std::string kind;
  json::object arguments;
  bool undoing = false;       ///< it failed, and its caller was or would have been told so: never to be finished any more
  std::int64_t sequence = 0;  ///< revision of the intent's commit, as far as the row was rewritten since
  Revision revision = 0;
};

std::string encode(const Row& row) {
  return json::serialize(
      json::object{{"kind", row.kind}, {"arguments", row.arguments}, {"undoing", row.undoing}, {"sequence", row.sequence}});
}

Result<Row> decode(const Document& document) {
  Row row;
  row.id = document.key.substr(prefix.size());
  row.revision = document.revision;
  VIRGA_TRY(const json::object object, parse_json_object(document.value));
  const Fields fields(object);
  VIRGA_TRY(row.kind, fields.string("kind"));
  VIRGA_TRY(row.arguments, fields.object("arguments"));
  VIRGA_TRY(row.undoing, fields.boolean("undoing"));
  VIRGA_TRY(row.sequence, fields.integer("sequence"));
  if (row.sequence == 0) row.sequence = row.revision;
  return row;
}

/// A step may throw only by a bug, but its roll-back must not be skipped then.
Task<Result<>> call(const std::function<Task<Result<>>()>& function) {
  std::string what;
  try {
    co_return co_await function();
  } catch (const std::exception& e) {
    what = e.what();
  }
  co_return fail(ErrorKind::internal, "unexpected: " + what);
}

template <class F>
Result<Transaction> make(const F& function) {
  if (!function) return Transaction();
  return function();
}

/// One procedure under way: knows how its fault points are called and where its row is.
class Run {
 public:
  Run(Store& store, Procedure& procedure, Row row, std::string fault_prefix)
      : store_(store), procedure_(procedure), row_(std::move(row)), fault_prefix_(std::move(fault_prefix)) {}

  Task<Result<>> intend() {
    Transaction t = std::move(procedure_.intent);
    t.expect(key(), 0).put(key(), encode(row_));
    auto revision = co_await store_.commit(std::move(t));
    if (!revision) co_return fail(std::move(revision).error());
    row_.revision = *revision;
    row_.sequence = *revision;
    co_return Result<>();
  }

  /// All steps from the first; `reached_` is how many have begun.
  Task<Result<>> forward() {
    for (std::size_t i = 0; i < procedure_.steps.size(); ++i) {
      if (co_await is_cancelled()) co_return fail(ErrorKind::cancelled, "cancelled");
      VIRGA_CO_CHECK(fault(step_point(i, "before")));
      reached_ = i + 1;
      VIRGA_CO_CHECK(co_await call(procedure_.steps[i].run));
      VIRGA_CO_CHECK(fault(step_point(i, "after")));
    }
    if (co_await is_cancelled()) co_return fail(ErrorKind::cancelled, "cancelled");
    VIRGA_CO_CHECK(fault(procedure_.kind + ".outcome.before"));
    VIRGA_CO_CHECK(co_await close(make(procedure_.outcome)));
    (void)fault(procedure_.kind + ".outcome.after");  // Done is done: only a kill counts here.
    co_return Result<>();
  }

  /// Undoes what has begun, last first. It stops at an undo that fails: those before it may rely on it.
  Task<Result<>> backward() {
    if (!row_.undoing) {
      row_.undoing = true;
      Transaction mark;
      mark.expect(key(), row_.revision).put(key(), encode(row_));
      auto revision = co_await store_.commit(std::move(mark));
      // A full disk must not keep us from taking back what fills it.
      if (revision) row_.revision = *revision;
    }
    VIRGA_CO_CHECK(fault("undo." + procedure_.kind + ".intent"));
    for (std::size_t i = reached_; i-- > 0;) {
      const Step& step = procedure_.steps[i];
      if (!step.undo) continue;
      VIRGA_CO_CHECK(fault("undo." + step_point(i, "before")));
      if (auto r = co_await call(step.undo); !r) co_return fail(std::move(r).error().wrap("undo '" + step.name + "'"));
      VIRGA_CO_CHECK(fault("undo." + step_point(i, "after")));
    }
    VIRGA_CO_CHECK(fault("undo." + procedure_.kind + ".outcome.before"));
    VIRGA_CO_CHECK(co_await close(make(procedure_.undone)));
    (void)fault("undo." + procedure_.kind + ".outcome.after");
    co_return Result<>();
  }

  void everything_may_have_begun() { reached_ = procedure_.steps.size(); }
  Result<> fault(const std::string& name) const { return fault_point(fault_prefix_ + name); }

 private:
  std::string key() const { return std::string(prefix) + row_.id; }
  std::string step_point(std::size_t i, const char* when) const {
    return procedure_.kind + "." + std::to_string(i + 1) + "." + procedure_.steps[i].name + "." + when;
  }
  /// Commits the last documents together with the end of the row.
  Task<Result<>> close(Result<Transaction> last) {
    if (!last) co_return fail(std::move(last).error());
    last->expect(key(), row_.revision).erase(key());
    auto revision = co_await store_.commit(std::move(*last));
    if (!revision) co_return fail(std::move(revision).error());
    co_return Result<>();
  }

  Store& store_;
  Procedure& procedure_;
  Row row_;
  std::string fault_prefix_;
  std::size_t reached_ = 0;
};

}  // namespace

struct Journal::Impl {
  explicit Impl(Store& s) : store(s) {}
  Store& store;
  std::map<std::string, Builder> kinds;
  std::function<void(const std::string&, const std::string&, bool)> on_recovered;

  Task<Result<>> recover_row(Row row);
};

Journal::Journal(Store& store) : impl_(std::make_unique<Impl>(store)) {}
Journal::~Journal() = default;

void Journal::register_kind(std::string kind, Builder builder) {
  impl_->kinds[std::move(kind)] = std::move(builder);
}

void Journal::on_recovered(std::function<void(const std::string&, const std::string&, bool)> call) {
  impl_->on_recovered = std::move(call);
}

Task<Result<>> Journal::execute(Procedure procedure) {
  if (procedure.id.empty() || procedure.id.find('/') != std::string::npos)
    co_return fail(ErrorKind::internal, "'" + procedure.id + "' cannot name a row of the journal");
  Row row;
  row.id = procedure.id;
  row.kind = procedure.kind;
  row.arguments = procedure.arguments;
  Run run(impl_->store, procedure, std::move(row), "");
  VIRGA_CO_CHECK(co_await run.intend());
  auto result = run.fault(procedure.kind + ".intent");
  if (result) result = co_await run.forward();
  if (result) co_return result;

  co_await shield();
  if (auto undone = co_await run.backward(); !undone) {
    log::error("operation {}: {}: taking it back failed; the next start tries again: {}", procedure.id, procedure.kind,
               undone.error().text());
  }
  co_return result;
}

Task<Result<>> Journal::Impl::recover_row(Row row) {
  auto kind = kinds.find(row.kind);
  if (kind == kinds.end()) co_return fail(ErrorKind::unsupported, "nothing here knows how to recover '" + row.kind + "'");
  auto built = co_await kind->second(row.id, row.arguments);
  if (!built) co_return fail(std::move(built).error());
  Procedure procedure = std::move(*built);
  procedure.kind = row.kind;
  procedure.id = row.id;
  const bool finish = procedure.on_recovery == OnRecovery::finish && !row.undoing;
  Run run(store, procedure, std::move(row), "recover.");
  VIRGA_CO_CHECK(run.fault(procedure.kind + ".intent"));
  run.everything_may_have_begun();
  const auto kept_kind = procedure.kind, id = procedure.id;
  if (finish) {
    VIRGA_CO_CHECK(co_await run.forward());
    if (procedure.recovered) procedure.recovered();
  } else {
    VIRGA_CO_CHECK(co_await run.backward());
  }
  if (on_recovered) on_recovered(id, kept_kind, finish);
  co_return Result<>();
}

Task<std::vector<Error>> Journal::recover() {
  std::vector<Error> problems;
  auto documents = co_await impl_->store.list(std::string(prefix));
  if (!documents) {
    problems.push_back(std::move(documents).error().wrap("read the journal"));
    co_return problems;
  }
  std::vector<Row> rows;
  for (const auto& document : *documents) {
    auto row = decode(document);
    if (row) {
      rows.push_back(std::move(*row));
    } else {
      problems.push_back(std::move(row).error().wrap("row '" + document.key + "'"));
    }
  }
  std::sort(rows.begin(), rows.end(),
            [](const Row& a, const Row& b) { return std::tie(a.sequence, a.id) < std::tie(b.sequence, b.id); });
  for (auto& row : rows) {
    const std::string what = row.kind + " of operation " + row.id;
    log::info("recovering {}", what);
    auto r = co_await impl_->recover_row(std::move(row));
    if (!r) problems.push_back(std::move(r).error().wrap("recover " + what));
  }
  for (const auto& problem : problems) log::error("{}", problem.text());
  co_return problems;
}

}  // namespace virga::engine
