#include "store/sqlite/store.h"

#include <deque>

#include "base/log.h"
#include "store/common.h"

namespace virga {
namespace {

constexpr std::size_t max_batch = 256;

tl::unexpected<Error> is_closed() {
  return fail(ErrorKind::unavailable, "the state store is closed");
}

class SqliteStore final : public Store {
 public:
  SqliteStore(Executor executor, std::unique_ptr<BlockingPool> pool, std::unique_ptr<sqlite::Database> database)
      : executor_(executor), database_(std::move(database)), pool_(std::move(pool)), writer_(executor) {}

  Task<Result<std::optional<Document>>> get(std::string key) override {
    if (closed_) co_return is_closed();
    auto work = [db = database_.get(), key = std::move(key)] { return db->get(key); };
    co_return co_await pool_->run(std::move(work));
  }

  Task<Result<std::vector<Document>>> list(std::string prefix) override {
    if (closed_) co_return is_closed();
    auto work = [db = database_.get(), prefix = std::move(prefix)] { return db->list(prefix); };
    co_return co_await pool_->run(std::move(work));
  }

  Task<Result<Revision>> commit(Transaction transaction) override {
    if (closed_) co_return is_closed();
    VIRGA_CO_CHECK(check_transaction(transaction));
    auto mine = std::make_shared<Pending>(executor_, std::move(transaction));
    queue_.push_back(mine);
    if (!writing_) {
      writing_ = true;
      writer_.spawn("state store commits", write_queue());
    }
    // A commit that has begun is waited for, cancelled or not: by a task that nobody cancels.
    TaskGroup waiting(executor_);
    waiting.spawn("wait for a commit", end_of(mine));
    co_await waiting.join();
    co_return std::move(*mine->result);
  }

  std::unique_ptr<Watch> watch(std::string prefix, std::function<void(const Change&)> callback) override {
    return watchers_.add(std::move(prefix), std::move(callback));
  }

  Task<> close() override {
    if (std::exchange(closed_, true)) co_return;
    co_await writer_.join();
    auto work = [this] { database_.reset(); };
    co_await pool_->run(std::move(work));
  }

 private:
  struct Pending {
    Pending(Executor e, Transaction t) : transaction(std::move(t)), done(std::move(e)) {}
    Transaction transaction;
    std::optional<Result<Revision>> result;
    Notification done;
  };

  static Task<> end_of(std::shared_ptr<Pending> commit) {
    while (!commit->result) co_await commit->done.wait();
  }

  Task<> write_queue() {
    while (!queue_.empty()) {
      std::vector<std::shared_ptr<Pending>> batch;
      std::vector<const Transaction*> transactions;
      while (!queue_.empty() && batch.size() < max_batch) {
        batch.push_back(std::move(queue_.front()));
        queue_.pop_front();
        transactions.push_back(&batch.back()->transaction);
      }
      auto work = [db = database_.get(), &transactions] { return db->apply(transactions); };
      auto results = co_await pool_->run(std::move(work));
      for (std::size_t i = 0; i < batch.size(); ++i) {
        auto& result = results[i];
        if (result) {
          watchers_.tell(result->changes);
          batch[i]->result = result->revision;
        } else {
          if (result.error().kind() != ErrorKind::conflict) log::error("state store: {}", result.error().text());
          batch[i]->result = fail(std::move(result).error());
        }
        batch[i]->done.notify();
      }
    }
    writing_ = false;
  }

  Executor executor_;
  std::unique_ptr<sqlite::Database> database_;
  std::unique_ptr<BlockingPool> pool_;  ///< behind the database: its thread has ended before that goes
  TaskGroup writer_;
  std::deque<std::shared_ptr<Pending>> queue_;
  bool writing_ = false;
  bool closed_ = false;
  Watchers watchers_;
};

}  // namespace

Task<Result<std::unique_ptr<Store>>> open_sqlite_store(std::string path, sqlite::Options options) {
  auto pool = std::make_unique<BlockingPool>("store", 1);
  auto work = [path = std::move(path), options = std::move(options)] { return sqlite::Database::open(path, options); };
  auto database = co_await pool->run(std::move(work));
  if (!database) co_return fail(std::move(database).error());
  auto executor = co_await current_executor();
  co_return std::make_unique<SqliteStore>(executor, std::move(pool), std::move(*database));
}

}  // namespace virga
