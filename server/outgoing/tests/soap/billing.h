//gsoap b service name:      Billing
//gsoap b service portName:  Billing
//gsoap b service namespace: urn:billing
//gsoap b service location:  http://billing.invalid/
//gsoap b service style:     document
//gsoap b service encoding:  literal
//gsoap b schema namespace:  urn:billing
//gsoap b schema elementForm: qualified

#import "wsse.h"

typedef char *xsd__string;
typedef char *xsd__decimal;
typedef char *xsd__date;
typedef int xsd__int;
typedef LONG64 xsd__long;
typedef double xsd__double;
enum xsd__boolean { false_, true_ };
struct xsd__base64Binary { unsigned char *__ptr; int __size; };

enum b__Kind { RETAIL, TRADE };

struct b__Line {
  @xsd__string unit 0:1;
  xsd__string article 1:1;
  xsd__int count 1:1;
  xsd__decimal price 0:1;
};

struct b__Invoice {
  xsd__long number 1:1;
  enum b__Kind kind 1:1;
  xsd__dateTime issued 1:1;
  xsd__date due 1:1;
  enum xsd__boolean paid 1:1;
  xsd__decimal total 1:1;
  xsd__double weight 1:1;
  int __sizeline;
  struct b__Line *line 0;
  xsd__string note 0:1;
  xsd__int *discount nullptr 1:1;
  struct xsd__base64Binary *scan 0:1;
};

struct b__Problem {
  xsd__int code 1:1;
  xsd__decimal limit 1:1;
};

struct SOAP_ENV__Detail {
  char *__any;
  struct b__Problem *b__Problem;
  int __type;
  void *fault;
};

struct b__GetInvoiceResponse { struct b__Invoice *invoice 1:1; };
struct b__EchoResponse { struct b__Invoice *invoice 1:1; };
struct b__FailResponse { xsd__string nothing 0:1; };
struct b__WhoResponse { xsd__string user 0:1; };
struct b__NotedResponse { xsd__int count 1:1; };

//gsoap b service method-action: GetInvoice "urn:billing#GetInvoice"
int b__GetInvoice(xsd__long number 1:1, struct b__GetInvoiceResponse *answer);

//gsoap b service method-action: Echo "urn:billing#Echo"
int b__Echo(struct b__Invoice *invoice 1:1, struct b__EchoResponse *answer);

//gsoap b service method-action: Fail "urn:billing#Fail"
//gsoap b service method-fault: Fail b__Problem
int b__Fail(xsd__int code 1:1, struct b__FailResponse *answer);

//gsoap b service method-action: Who "urn:billing#Who"
int b__Who(struct b__WhoResponse *answer);

//gsoap b service method-action: Note "urn:billing#Note"
int b__Note(xsd__string text 1:1, void);

//gsoap b service method-action: Noted "urn:billing#Noted"
int b__Noted(struct b__NotedResponse *answer);
