#include "common/rpc/trace.h"

#include <gtest/gtest.h>

#include <string>

namespace retro {
namespace {

const char kGiven[] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

TEST(TraceTest, GoesOnWithASpanOfItsOwn) {
  const Trace trace = ContinueTrace(kGiven);
  EXPECT_EQ(trace.trace_id, "4bf92f3577b34da6a3ce929d0e0e4736");
  EXPECT_EQ(trace.parent_id, "00f067aa0ba902b7");
  EXPECT_EQ(trace.flags, "01");
  EXPECT_NE(trace.span_id, trace.parent_id);
  const Trace next = ContinueTrace(trace.Header());
  EXPECT_EQ(next.trace_id, trace.trace_id);
  EXPECT_EQ(next.parent_id, trace.span_id);
  EXPECT_EQ(TraceIdOf(trace.Header()), trace.trace_id);
  EXPECT_EQ(SpanIdOf(trace.Header()), trace.span_id);
}

TEST(TraceTest, ALaterVersionMayHaveMore) {
  EXPECT_EQ(ContinueTrace("01" + std::string(kGiven + 2) + "-what").parent_id, "00f067aa0ba902b7");
}

TEST(TraceTest, WhatIsNoHeaderBeginsATrace) {
  const std::string given = kGiven;
  std::string upper = given, zero_trace = given, zero_span = given, ff = given, no_dash = given;
  upper[5] = 'F';
  zero_trace.replace(3, 32, 32, '0');
  zero_span.replace(36, 16, 16, '0');
  ff.replace(0, 2, "ff");
  no_dash[35] = '0';
  for (const std::string& header : {std::string(), upper, zero_trace, zero_span, ff, no_dash, given + "-more",
                                    given.substr(0, 54), std::string(55, 'x')}) {
    const Trace trace = ContinueTrace(header);
    EXPECT_EQ(trace.parent_id, "") << header;
    EXPECT_EQ(trace.Header().size(), given.size());
    EXPECT_NE(trace.trace_id, ContinueTrace(header).trace_id);
    EXPECT_EQ(ContinueTrace(trace.Header()).parent_id, trace.span_id) << "what it makes is a header";
  }
}

}  // namespace
}  // namespace retro
